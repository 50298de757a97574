"""What earlier versions have left in a store is read."""

from __future__ import annotations

import json
from typing import Any

from cures_core.config.run import RunConfig
from cures_core.evaluation.scores import SuiteScore
from tasks.runs.notes import changes_of
from tasks.runs.opening import started_config
from tasks.runs.records import Record
from tasks.storage.local import LocalStore

RECORD = """{"created_at":"2025-01-02T03:04:05+00:00",
"figures":{"digest":"d"},"files":null,"inputs":{"device":{"threads":1,
"type":"auto"},"policy":{"batch":128,"type":"warm-start"}},"key":"0123456789abcdef0123456789abcdef","manifest":null,
"parents":[],"schema_version":1,"seconds":1.5,"stage":"prepare_policy","versions":{"cures":"0.1.0","torch":"2.13.0"}}"""
"""Before records told their machine."""

SCORE: dict[str, Any] = {
    "suite": "exam",
    "policy": "p",
    "n": 4,
    "k": 2,
    "avg": {"value": 0.5, "low": 0.25, "high": 0.75},
    "pass_at": {"1": {"value": 0.5, "low": 0.25, "high": 0.75}},
    "unknown_share": 0.0,
    "truncated_share": 0.0,
    "tokens_mean": 3.0,
    "settings": {"suite_digest": "d", "k": 2, "verifier": "{}", "engine": "hf", "device": "cpu", "torch": "2.13.0"},
}
"""When versions and device were settings."""


def test_a_record_without_a_machine() -> None:
    record = Record.model_validate_json(RECORD)
    assert (record.machine, record.versions["torch"]) == ({}, "2.13.0")


def test_a_score_whose_versions_are_settings() -> None:
    score = SuiteScore.model_validate(SCORE)
    assert (score.made_with, score.settings["device"]) == ({}, "cpu")


def test_a_run_that_noted_one_digest_and_no_fork(tmp_path: Any) -> None:
    config = RunConfig.model_validate(
        {"data": {"path": "p"}, "rollout": {"max_new_tokens": 4}, "training": {"learning_rate": 1e-3}}
    )
    first = {"config": config.model_dump(mode="json", exclude={"fork"}), "data_digest": "d", "started_at": "then"}
    store = LocalStore(tmp_path)
    store.put("runs/old-1/run.json", json.dumps(first).encode())
    assert started_config(store, "old-1") == config
    assert changes_of(store, "old-1") == []
