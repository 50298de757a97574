"""What the report says of a run beside its tables: its start, notices, machines, calibration by epoch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cures_core.config.run import RunConfig
from tasks.runs.listing import list_runs
from tasks.runs.notes import Started, started_place
from tasks.runs.reading import RunRecords
from tasks.runs.records import Record, RunRef
from tasks.stages.report import _calibration, _machines, _notices, report_data
from tasks.storage.local import LocalStore
from tasks.storage.values import encode_value
from tests.tasks.stages.figures import figures_of


def record(stage: str, machine: dict[str, str] | None = None, **figures: Any) -> Record[Any]:
    return Record(stage=stage, key="k", inputs={}, figures=figures_of(stage, **figures), machine=machine or {})


def config(**training: Any) -> RunConfig:
    return RunConfig.model_validate(
        {"data": {"path": "t"}, "rollout": {"max_new_tokens": 1}, "training": {"learning_rate": 1, **training}}
    )


def test_a_run_that_found_records_of_another_began_when_it_was_started(tmp_path: Path) -> None:
    run = RunRef(name="demo-1", config=config(), token=0)
    store, began = LocalStore(tmp_path), "2026-11-28T10:00:00.000000+00:00"
    started = Started(config=run.config.model_dump(mode="json"), started_at=began)
    store.put(started_place(run.name), encode_value(started))
    shared = record("promote").model_copy(update={"created_at": "2026-11-27T21:02:30+00:00"})
    shown = report_data(store, run, RunRecords(decision=shared))
    assert shown.started_at == began == list_runs(store)[0].started


def test_entropy_below_its_alarm_is_noted_with_how_often() -> None:
    rows: list[dict[str, float | str]] = [
        {"sampled_entropy": 0.01, "entropy": 0.5},  # of all rollouts, not of those in the update
        {"sampled_entropy": 0.5, "entropy": 0.01},
        {"sampled_entropy": 0.0, "updated": 0.0},  # always the same: nothing to train on
        {"step": 4.0},
    ]
    (notice,) = _notices(rows, 0.05)
    assert notice.startswith("In 2 of 3 steps the policy's entropy was below 0.05 nats a token")
    (notice,) = _notices([{"entropy": 0.5}, {"entropy": 0.01}], 0.05)  # of a version without the estimate
    assert notice.startswith("In 1 of 2 steps")
    assert _notices(rows, 0.0) == []
    assert _notices([], 0.05) == []


@pytest.mark.parametrize(("alarm", "told"), [(0.0, False), (0.05, True)])
def test_the_configured_entropy_alarm_is_the_one_of_the_report(
    alarm: float, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunRef(name="demo-1", config=config(entropy_alarm=alarm), token=0)
    store = LocalStore(tmp_path)
    store.put(started_place(run.name), encode_value(Started(config=run.config.model_dump(mode="json"), started_at="")))
    monkeypatch.setattr("tasks.stages.report.steps", lambda *_: [{"step": 1, "entropy": 0.01}])
    notices = report_data(store, run, RunRecords()).notices
    assert any("training.entropy_alarm" in notice for notice in notices) is told


def test_a_machine_is_told_once_with_all_that_is_known_of_it() -> None:
    cpu, gpu = {"processor": "P"}, {"processor": "P", "device": "cuda", "gpu": "G"}
    labelled = [
        ("", record("validate_dataset", cpu)),
        ("1", record("train_epoch", gpu)),
        ("2", record("train_epoch", {"processor": "P", "device": "cpu"})),
        ("", record("promote")),  # of a version that did not say
    ]
    assert _machines(labelled) == (
        ("validate_dataset, train_epoch 1", gpu),
        ("train_epoch 2", {"processor": "P", "device": "cpu"}),
    )


def test_calibration_is_that_of_each_epoch_though_records_count_from_the_start() -> None:
    def epoch(*bins: tuple[float, float, float]) -> Record[Any]:
        rows = tuple(dict(zip(("predicted", "observed", "rollouts"), one, strict=True)) for one in bins)
        return record("train_epoch", reliability=rows)

    records = RunRecords(epochs={1: epoch((0.25, 0.5, 10)), 2: epoch((0.25, 0.375, 20), (0.75, 1.0, 4))})
    first, second = _calibration(records)
    assert (first.label, first.observed) == ("epoch 1", 0.5)
    assert [(b.predicted, b.observed, b.rollouts) for b in second.bins] == [(0.25, 0.25, 10), (0.75, 1.0, 4)]


@pytest.mark.parametrize(
    ("truncated", "share", "words"),
    [
        ("judged", 0.03, 'training and the posterior take as the policy\'s mistakes: raise .*truncated = "masked"'),
        ("masked", 0.03, r"the posterior takes as the policy's mistakes: raise rollout.max_new_tokens\.$"),
        ("wrong", 0.03, None),  # as it was asked for
        ("judged", 0.01, None),
        ("judged", None, None),  # a record of an earlier version
    ],
)
def test_completions_that_are_wrong_because_they_were_cut_off_are_told(
    truncated: str, share: float | None, words: str | None
) -> None:
    row: dict[str, float | str] = {"step": 1, "truncated_share": 0.1}
    rows = [row if share is None else {**row, "truncated_wrong_share": share}] * 3
    found = _notices(rows, 0.0, truncated)
    assert len(found) == (words is not None)
    if words is not None:
        assert re.search(words, found[0])
        assert found[0].startswith("3.0 % of the completions were cut off at the token limit and counted as wrong")


def test_many_completions_at_the_token_limit_are_told() -> None:
    assert "More than a fifth" in _notices([{"step": 1, "truncated_share": 0.3}], 0.0)[0]
