"""Runs beside each other: which of their settings are shown."""

from __future__ import annotations

import json
from pathlib import Path

from cures_core.config.loading import with_overrides
from cures_core.config.run import RunConfig
from tasks.runs.compare import compare_runs
from tasks.storage.local import LocalStore

CONFIG = RunConfig.model_validate(
    {"data": {"path": "p"}, "rollout": {"max_new_tokens": 4}, "training": {"learning_rate": 1e-3}}
)


def test_settings_that_differ_are_shown_by_their_mark(tmp_path: Path) -> None:
    """Results and operations are; where something lies is not."""
    store = LocalStore(tmp_path)
    other = ("training.learning_rate=0.01", "rollout.batch_rows=8", "snapshot.remote=elsewhere")
    for name, overrides in (("one-1", ()), ("two-2", other)):
        config = with_overrides(CONFIG, overrides).model_dump(mode="json")
        store.put(f"runs/{name}/run.json", json.dumps({"config": config, "started_at": "then"}).encode())
    assert compare_runs(store, ["one-1", "two-2"]).settings == {
        "training.learning_rate": ("0.001", "0.01"),
        "rollout.batch_rows": ("256", "8"),
    }
