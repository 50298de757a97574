"""What a comparison says of the runs themselves, whether or not they were scored on anything in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cures_core.config.loading import with_overrides
from cures_core.config.run import RunConfig
from cures_core.report.comparison_page import render_comparison
from flows.cli.runs import comparison_lines
from tasks.runs import compare
from tasks.runs.reading import RunRecords
from tasks.runs.records import Record
from tasks.storage.local import LocalStore
from tests.tasks.runs.test_old_files import started
from tests.tasks.stages.figures import figures_of

CONFIG = RunConfig.model_validate(
    {"data": {"path": "p"}, "rollout": {"max_new_tokens": 4}, "training": {"learning_rate": 1e-3}}
)
STEP = {"type": "uniform", "prompts_per_step": 4, "rollouts_per_step": 64}
HERE = {"processor": "EPYC", "device": "cpu", "dtype": "float32"}


def epoch(machine: dict[str, str], torch: str = "2.13.0") -> Record[Any]:
    figures = figures_of("train_epoch")
    versions = {"cures": "0.2.0", "torch": torch}
    return Record(stage="train_epoch", key="k", inputs={}, figures=figures, machine=machine, versions=versions)


def differences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **runs: list[Record[Any]]
) -> dict[str, tuple[str, ...]]:
    store = LocalStore(tmp_path)
    for name in runs:
        started(store, name, STEP)
    records = {name: RunRecords(epochs=dict(enumerate(epochs, 1))) for name, epochs in runs.items()}
    monkeypatch.setattr(compare, "read_run", lambda _, name: records[name])
    monkeypatch.setattr(compare, "steps", lambda *_: [])
    found = compare.compare_runs(store, list(runs))
    assert all(key in render_comparison(found) for key in found.settings)
    assert all(any(key in line for line in comparison_lines(found)) for key in found.settings)
    return found.settings


def test_what_trained_is_told_where_it_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = differences(
        tmp_path,
        monkeypatch,
        one=[epoch({**HERE, "ranks": "1"})],
        two=[epoch({**HERE, "ranks": "4"}), epoch({**HERE, "ranks": "8"}, torch="2.14.0")],
        old=[epoch({})],
    )
    assert found == {
        "torch (trained with)": ("2.13.0", "2.13.0 and 2.14.0", "2.13.0"),
        "processor (trained with)": ("EPYC", "EPYC", "-"),
        "device (trained with)": ("cpu", "cpu", "-"),
        "dtype (trained with)": ("float32", "float32", "-"),
        "ranks (trained with)": ("1", "4 and 8", "-"),
    }


def test_alike_runs_and_such_as_have_not_trained_differ_in_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert differences(tmp_path, monkeypatch, one=[epoch(HERE)], two=[epoch(HERE)]) == {}
    assert differences(tmp_path, monkeypatch, one=[epoch(HERE)], new=[]) == {}


def test_settings_that_differ_are_shown_by_their_mark(tmp_path: Path) -> None:
    """Results and operations are; where something lies is not."""
    store = LocalStore(tmp_path)
    other = ("training.learning_rate=0.01", "rollout.batch_rows=8", "snapshot.remote=elsewhere")
    for name, overrides in (("one-1", ()), ("two-2", other)):
        config = with_overrides(CONFIG, overrides).model_dump(mode="json")
        store.put(f"runs/{name}/run.json", json.dumps({"config": config, "started_at": "then"}).encode())
    assert compare.compare_runs(store, ["one-1", "two-2"]).settings == {
        "training.learning_rate": ("0.001", "0.01"),
        "rollout.batch_rows": ("256", "8"),
    }
