"""What earlier versions have left in a store is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from cures_core.config.run import RunConfig
from cures_core.config.storage import StoreConfig
from cures_core.config.urls import read_kept
from cures_core.errors import ConfigError, CorruptArtifact
from cures_core.evaluation.scores import SuiteScore
from flows.cli.main import app
from tasks.runs.again import stages_in_order
from tasks.runs.compare import compare_runs
from tasks.runs.explain import explain
from tasks.runs.figures import FIGURES, PolicyFigures
from tasks.runs.notes import changes_of
from tasks.runs.opening import started_config, usable_config
from tasks.runs.records import Record, read_any, record_bytes, record_place
from tasks.runs.resume import resumed_config
from tasks.storage.local import LocalStore
from tasks.storage.values import encode_value

RECORD = """{"created_at":"2025-01-02T03:04:05+00:00",
"figures":{"digest":"d"},"files":null,"inputs":{"device":{"threads":1,
"type":"auto"},"policy":{"batch":128,"type":"warm-start"}},"key":"0123456789abcdef0123456789abcdef","manifest":null,
"parents":[],"schema_version":1,"seconds":1.5,"stage":"prepare_policy","versions":{"cures":"0.1.0","torch":"2.13.0"}}"""
"""Before records told their machine."""

PLAIN = {"data": {"path": "p"}, "rollout": {"max_new_tokens": 4}, "training": {"learning_rate": 1e-3}}
CONFIG = RunConfig.model_validate(PLAIN)

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


EARLY = {
    "validate_dataset": {"digest": "d", "suites": {"exam": "e"}, "prompts": 9, "rows": 10, "rejected": 1},
    "prepare_policy": {"digest": "d", "steps": 400.0, "loss": 0.25},
    "estimate_prior": {"posterior_digest": "p", "prompts": 3, "rollouts": 12, "tokens": 99, "unknown": 1},
    "train_epoch": {"checkpoint_digest": "c", "posterior_digest": "p", "step": 5, "rollouts": 40, "tokens": 200},
    "evaluate_checkpoint": {
        "rollouts": 8,
        "tokens": 64,
        "unknown": 0,
        "scores": {"exam": {"value": 0.5, "low": 0.25, "high": 0.75}},
    },
    "snapshot_posterior": {"tag": "posterior/a-1/0", "commit": "c", "md5": "m", "size": 7, "remote": "r", "path": "p"},
    "promote": {"promoted": False, "reasons": ["too close"], "model": "m", "incumbent": "the base policy"},
    "report": {"steps": 5, "bytes": 1000},
}
"""Figures as the first versions of the stages wrote them."""


def test_a_record_without_a_machine() -> None:
    record = Record.model_validate_json(RECORD)
    assert (record.machine, record.versions["torch"]) == ({}, "2.13.0")
    assert record.figures == PolicyFigures(digest="d")


@pytest.mark.parametrize("stage", EARLY)
def test_figures_of_early_versions_are_read_and_written_as_they_were(stage: str, tmp_path: Path) -> None:
    store, written = LocalStore(tmp_path), {**json.loads(RECORD), "stage": stage, "figures": EARLY[stage]}
    store.put(record_place(stage, written["key"]), encode_value(written))
    record = read_any(store, stage, written["key"])
    assert record is not None
    assert type(record.figures) is FIGURES[stage]
    assert json.loads(record_bytes(record))["figures"] == EARLY[stage]


def test_every_stage_has_figures_here() -> None:
    assert set(EARLY) == {name.rpartition("-")[0] or name for name in stages_in_order(CONFIG)} | {"promote"}


@pytest.mark.parametrize(
    ("stage", "change", "said"),
    [
        ("train_epoch", {"step": "many"}, "step: Input should be a valid integer"),
        ("train_epoch", {"steps": 5}, "steps: Extra inputs are not permitted"),
        ("evaluate_checkpoint", {"scores": {"exam": {"value": 1}}}, "scores.exam.low: Field required"),
        ("a_stage_of_tomorrow", {}, "of a stage that this version does not know"),
    ],
)
def test_foreign_figures_are_named_by_record_and_field(
    stage: str, change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    store, figures = LocalStore(tmp_path), {**EARLY.get(stage, {}), **change}
    written = {**json.loads(RECORD), "stage": stage, "figures": figures}
    store.put(record_place(stage, written["key"]), encode_value(written))
    with pytest.raises(CorruptArtifact) as caught:
        read_any(store, stage, written["key"])
    assert str(caught.value).startswith(f"stages/{stage}/{written['key']}.json: figures: {said}")


def test_a_score_whose_versions_are_settings() -> None:
    score = SuiteScore.model_validate(SCORE)
    assert (score.made_with, score.settings["device"]) == ({}, "cpu")


def test_a_run_that_noted_one_digest_and_no_fork(tmp_path: Any) -> None:
    config = CONFIG
    first = {"config": config.model_dump(mode="json", exclude={"fork"}), "data_digest": "d", "started_at": "then"}
    store = LocalStore(tmp_path)
    store.put("runs/old-1/run.json", json.dumps(first).encode())
    assert started_config(store, "old-1") == config
    assert changes_of(store, "old-1") == []


STEP = {"prompts_per_step": 4, "rollouts_per_step": 64}
RETIRED: dict[str, dict[str, Any]] = {
    "curriculum.posterior.drift": {"type": "cures", **STEP, "posterior": {"drift": 0.3}},
    "curriculum.weighting.type": {"type": "cures", **STEP, "weighting": {"type": "ess", "share": 0.5}},
    "curriculum.type": {"type": "mopps", **STEP, "decay": 0.5, "target": 0.5, "candidates": 16},
}


def started(store: LocalStore, name: str, curriculum: dict[str, Any]) -> None:
    """What an earlier version has noted of a run's start and end."""
    config = RunConfig.model_validate(
        {"data": {"path": "p"}, "rollout": {"max_new_tokens": 4}, "training": {"learning_rate": 1e-3}}
    )
    noted = {**config.model_dump(mode="json"), "curriculum": curriculum}
    store.put(f"runs/{name}/run.json", json.dumps({"config": noted, "started_at": "then"}).encode())
    store.put(f"runs/{name}/status.json", json.dumps({"status": "completed", "at": "then"}).encode())


@pytest.mark.parametrize("key", RETIRED)
def test_a_run_that_used_what_has_been_retired_is_shown_and_not_gone_on_with(key: str, tmp_path: Any) -> None:
    store, place = LocalStore(tmp_path), StoreConfig(url=str(tmp_path))
    started(store, "old-1", RETIRED[key])
    started(store, "new-1", {"type": "cures", **STEP, "posterior": {"drift": 0.0}})
    for command in (["runs", "list"], ["runs", "show", "old-1"]):
        shown = CliRunner().invoke(app, [*command, "--store", str(tmp_path)], catch_exceptions=False)
        assert shown.exit_code == 0
        assert "old-1" in shown.output
    assert started_config(store, "old-1").curriculum.rollouts_per_step == 64
    values = compare_runs(store, ["old-1", "new-1"]).settings[f"{key} (retired)"]
    section, _, name = key.removeprefix("curriculum.").rpartition(".")
    assert values == (json.dumps((RETIRED[key][section] if section else RETIRED[key])[name]), "-")
    named = key.removeprefix("curriculum.")
    words = rf"^run old-1 can be read, .* curriculum: {named} = .* was taken out in 0\.2\.0"
    with pytest.raises(ConfigError, match=words):
        resumed_config(place, "old-1")
    assert usable_config(store, "new-1").curriculum.type == "cures"


def test_draws_by_what_has_been_retired_are_not_explained_as_others(tmp_path: Any, monkeypatch: Any) -> None:
    started(LocalStore(tmp_path), "old-1", RETIRED["curriculum.weighting.type"])
    monkeypatch.setattr("tasks.runs.explain._believed", lambda *_: (None, None))
    with pytest.raises(ConfigError, match="taken out"):
        explain(StoreConfig(url=str(tmp_path)), "old-1", None, None)


SECRET = "canary-4f9c1e"
WITH_SECRETS: dict[str, Any] = {
    "data": {"path": f"s3://key:{SECRET}@bucket/set.jsonl"},
    "rollout": {"type": "vllm_server", "endpoints": [f"http://user:{SECRET}@127.0.0.1:8000"], "max_new_tokens": 4},
    "store": {"endpoint_url": f"http://user:{SECRET}@127.0.0.1:9", "lease_ttl_s": 7.0},
    "snapshot": {"repository": f"https://{SECRET}@git.example.org/x.git"},
    "tracking": {"mlflow": f"https://mlflow.example.org/?token={SECRET}"},
}


@pytest.mark.parametrize("status", ["running", "completed"])
def test_a_run_whose_addresses_hold_passwords_is_read_without_them(tmp_path: Path, status: str) -> None:
    plain = CONFIG
    kept = {**plain.model_dump(mode="json", exclude={"fork"}), "name": "old", **WITH_SECRETS}
    store = LocalStore(tmp_path)
    store.put("runs/old-1/run.json", json.dumps({"config": kept, "data_digest": "d", "started_at": "then"}).encode())
    store.put("runs/old-1/status.json", json.dumps({"status": status, "at": "2025-01-01T00:00:00+00:00"}).encode())
    config = started_config(store, "old-1")
    assert config.data.path == "s3://bucket/set.jsonl"
    assert (config.store.endpoint_url, config.store.lease_ttl_s) == ("http://127.0.0.1:9", 7.0)
    assert config.snapshot.repository == "https://git.example.org/x.git"
    assert SECRET not in config.model_dump_json()
    commands = ("runs list", "runs list --json", "runs show old-1", "runs show old-1 --json", "runs verify --all",
                "run --resume old-1 --print-config")  # fmt: skip
    for words in map(str.split, commands):
        outcome = CliRunner().invoke(app, [*words, "--store", str(tmp_path)])
        assert outcome.exception is None or isinstance(outcome.exception, SystemExit | ConfigError), words
        assert SECRET not in outcome.output + str(outcome.exception), words
        if words[1] in ("list", "show"):
            assert outcome.exit_code == 0, outcome.output
            assert "old-1" in outcome.output


def test_what_else_is_wrong_with_a_kept_configuration_is_still_told(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="seed") as caught:
        read_kept(RunConfig, {"seed": -1, **WITH_SECRETS, "training": {"learning_rate": 1e-3}})
    assert SECRET not in str(caught.value)
