"""A run's records, read by their kind and in the order of its epochs, and what is derived from them alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cures_core.errors import ConfigError, CorruptArtifact
from tasks.runs.figures import EpochFigures, EvaluateFigures, PriorFigures
from tasks.runs.notes import note_stage
from tasks.runs.opening import open_run
from tasks.runs.reading import by_epoch, read_run
from tasks.runs.records import Record, record_bytes, record_place
from tasks.runs.training import spent
from tasks.storage import Store, open_store
from tests.tasks.stages.figures import figures_of
from tests.tasks.stages.starts import config_in


@pytest.fixture
def run(tmp_path: Path) -> tuple[Store, str]:
    """Eleven epochs, of which the last and the base policy were scored."""
    config = config_in(tmp_path, 1e-4)
    store = open_store(config.store)
    with open_run(config) as ref:

        def put(stage: str, label: str = "", **figures: Any) -> None:
            record = Record(stage=stage, key=f"{stage}{label}", inputs={}, figures=figures_of(stage, **figures))
            store.put(record_place(stage, record.key), record_bytes(record))
            note_stage(store, ref, label, record, cached=False)

        put("estimate_prior", rollouts=7, tokens=70)
        for k in (11, *range(1, 11)):  # as names sort, 11 comes before 2
            put("train_epoch", str(k), step=k, rollouts=100 * k, tokens=1000 * k)
        put("evaluate_checkpoint", "0", rollouts=3, tokens=30)
        put("evaluate_checkpoint", "11", rollouts=5, tokens=50)
    return store, ref.name


def test_records_have_the_figures_of_their_stage_and_epochs_their_order(run: tuple[Store, str]) -> None:
    records = read_run(*run)
    assert list(records.epochs) == list(range(1, 12))
    assert list(records.states) == list(range(12))
    assert [state.figures.step for state in records.states.values()] == list(range(12))
    assert isinstance(records.states[0].figures, PriorFigures)
    assert all(isinstance(epoch.figures, EpochFigures) for epoch in records.epochs.values())
    assert list(records.evaluations) == [0, 11]
    assert (records.data, records.policy, records.decision) == (None, None, None)
    assert [label for label, _ in records.labelled] == ["", *map(str, range(1, 12)), "0", "11"]


def test_epochs_count_from_the_start_and_evaluations_add_up(run: tuple[Store, str]) -> None:
    found = {part: (cost.rollouts, cost.tokens) for part, cost in spent(read_run(*run)).items()}
    assert found == {"prior": (7, 70), "train": (1100, 11000), "eval": (8, 80)}


def test_one_stage_is_read_without_the_others(run: tuple[Store, str]) -> None:
    store, name = run
    place = record_place("train_epoch", "train_epoch3")
    value = json.loads(store.get(place) or b"")
    store.put(place, json.dumps({**value, "seconds": 9.0}).encode())  # the seal is of another value
    assert list(by_epoch(store, name, EvaluateFigures)) == [0, 11]
    with pytest.raises(CorruptArtifact, match=place):
        read_run(store, name)


def test_a_run_that_is_not_there_is_named_with_those_that_are(run: tuple[Store, str]) -> None:
    with pytest.raises(ConfigError, match=f"no run another in this store; runs there: {run[1]}"):
        read_run(run[0], "another")
