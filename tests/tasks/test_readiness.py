"""What is said of a run before it does any work."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError, CuresError, MissingExtra, MissingInput
from cures_core.policy.loading import Policy, save_policy
from cures_core.rewards import code
from flows.cli.main import app
from tasks import readiness
from tasks.readiness import check_run, require_ready
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama
from tests.tasks.snapshots.test_publish import publish
from tests.tasks.stages.starts import config_in


def config(folder: Path, **changes: Any) -> RunConfig:
    plain = {**config_in(folder, 1e-4).model_dump(), **changes}
    return RunConfig.model_validate(plain)


def failing(cfg: RunConfig) -> dict[str, CuresError]:
    return {checked.finding.name: checked.error for checked in check_run(cfg) if checked.error is not None}


def suites(folder: Path) -> dict[str, Any]:
    return {"suites": [{"name": "easy", "path": str(folder / "easy.jsonl")}]}


def test_a_run_that_can_begin_is_told_so_and_has_not_begun(tmp_path: Path) -> None:
    cfg = config(tmp_path)
    assert not failing(cfg)
    require_ready(cfg)
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file() and ".locks" not in path.parts]


def blocked(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file" / "below"


def pretrained(folder: Path, lora: dict[str, Any] | None = None, **policy: Any) -> dict[str, Any]:
    """A small Llama, and adapters to train."""
    place = folder / "policy"
    save_policy(Policy(tiny_llama(), character_tokenizer(), torch.device("cpu")), place)
    return {
        "policy": {"type": "pretrained", "path": str(place), **policy},
        "training": {"learning_rate": 1e-4, "lora": lora},
    }


CHAT = {"max_new_tokens": 8, "prompt_format": {"chat": True}}


def without_tokenizer(folder: Path) -> dict[str, Any]:
    changes = pretrained(folder)
    for path in (folder / "policy").glob("*token*"):
        path.unlink()
    return changes


def snapshots(**places: Any) -> dict[str, Any]:
    return {"snapshot": places}


@pytest.mark.parametrize(
    ("name", "change", "kind", "words"),
    [
        ("prompts", lambda f: {"data": {"path": str(f / "gone.jsonl")}}, MissingInput, "gone.jsonl"),
        ("suite easy", lambda f: {"evaluation": suites(f)}, MissingInput, "easy.jsonl"),
        ("policy", lambda f: {"policy": {"type": "pretrained", "path": str(f)}}, MissingInput, "config.json"),
        ("store", lambda f: {"store": {"url": str(blocked(f))}}, CuresError, "file"),
        ("snapshots", lambda f: snapshots(repository=str(blocked(f))), ConfigError, "snapshot.repository"),
        ("snapshots", lambda f: snapshots(remote=str(blocked(f))), ConfigError, "snapshot.remote"),
        ("snapshots", lambda f: snapshots(repository=f"file://{f}/none.git"), CuresError, "none.git"),
        (
            "prior",
            lambda f: {"prior": {"type": "full", "start_from": "posterior/gone/0"}},
            MissingInput,
            "no such snap",
        ),
        ("policy", lambda f: pretrained(f, lora={"targets": ["q_proj", "q_porj"]}), ConfigError, "is called q_porj"),
        ("policy", lambda f: pretrained(f, warm_start={"lora": {"targets": ["x"]}}), ConfigError, "is called x; there"),
        (
            "policy",
            lambda f: {"training": {"learning_rate": 1e-4, "lora": {}}},
            ConfigError,
            "is called q_proj, k_proj",
        ),
        ("redaction", lambda f: {"redact": "tests.cures_core.kept_rollouts.hooks:gone"}, ConfigError, "redact: .*gone"),
        ("extras", lambda f: {"tracking": {"wandb": "project"}}, MissingExtra, r"cures\[wandb\]"),
    ],
)
def test_what_is_missing_is_an_error_before_any_work(
    name: str, change: Any, kind: type[CuresError], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide("wandb", monkeypatch)
    cfg = config(tmp_path, **change(tmp_path))
    error = failing(cfg)[name]
    assert isinstance(error, kind)
    with pytest.raises(kind, match=words):
        require_ready(cfg)


def hide(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were not installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else found(name))


def test_all_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    cfg = config(tmp_path, evaluation=suites(tmp_path), snapshot={"remote": str(blocked(tmp_path))})
    assert failing(cfg).keys() == {"suite easy", "snapshots"}


def found(cfg: RunConfig) -> dict[str, tuple[str, str]]:
    """Status and words of each row."""
    return {checked.finding.name: (checked.finding.status, checked.finding.found) for checked in check_run(cfg)}


@pytest.mark.parametrize(
    ("change", "row", "cause"),
    [
        (lambda f: {"policy": {"type": "pretrained", "path": str(f)}}, "disk", "policy"),
        (lambda f: {"policy": {"type": "pretrained", "path": str(f / "gone")}}, "disk", "policy"),
        (lambda f: {"policy": {"type": "pretrained", "path": "gone"}}, "disk", "policy"),
        (lambda f: pretrained(f, lora={"targets": ["x"]}), "disk", "policy"),
        (lambda f: {**without_tokenizer(f), "rollout": CHAT}, "prompt format", "policy"),
        (lambda f: {"store": {"url": str(blocked(f))}}, "snapshots", "store"),
    ],
)
def test_a_row_that_stands_on_another_says_only_that(change: Any, row: str, cause: str, tmp_path: Path) -> None:
    rows = found(config(tmp_path, **change(tmp_path)))
    assert rows[cause][0] == "missing"
    assert rows[row] == ("unknown", f"not known without {cause}")


def test_a_row_that_can_be_told_is_whatever_else_is_missing(tmp_path: Path) -> None:
    rows = found(config(tmp_path, data={"path": str(tmp_path / "gone.jsonl")}))
    assert rows["prompts"][0] == "missing"
    assert rows["disk"][0] == "ok"


def test_a_snapshot_that_is_there_is_found(tmp_path: Path) -> None:
    cfg = config(tmp_path, prior={"type": "full", "start_from": "posterior/run-1/0"})
    assert "posterior/run-1/0" in str(failing(cfg)["prior"])
    publish(tmp_path, cfg.snapshot.within(cfg.store.url), 1, "posterior/run-1/0")
    assert not failing(cfg)


def test_a_gpu_is_asked_for_where_the_device_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no CUDA device" in str(failing(config(tmp_path, device={"type": "cuda"}))["device"])
    assert not failing(config(tmp_path, device={"type": "auto"}))


def test_programs_must_be_confined_where_any_source_has_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_source = [{"sources": ["code"], "verifier": {"type": "code"}}]
    cfg = config(tmp_path, reward={"type": "exact", "by_source": by_source})
    monkeypatch.setattr(code, "why_not", lambda: "the kernel has no Landlock")
    assert "require_landlock = false" in str(failing(cfg)["sandbox"])
    assert "sandbox" not in failing(config(tmp_path))


def test_generated_items_need_their_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide("reasoning_gym", monkeypatch)
    suite = {**suites(tmp_path)["suites"][0], "reward": {"type": "reasoning_gym"}}
    cfg = config(tmp_path, evaluation={"suites": [suite]})
    assert "cures[reasoning-gym]" in str(failing(cfg)["extras"])


def test_environments_need_their_extra_and_a_word_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide("verifiers", monkeypatch)
    cfg = config(tmp_path, reward={"type": "verifiers", "environment": "owner/my-sums"})
    assert "reward.environment: my_sums is code of yours" in str(failing(cfg)["extras"])
    monkeypatch.setenv("CURES_PLUGINS", "my_sums")
    assert "cures[verifiers]" in str(failing(cfg)["extras"])


def test_git_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install git" in str(failing(config(tmp_path))["snapshots"])


def test_checkpoints_must_find_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config(tmp_path, epochs=10)
    free = 2**20
    monkeypatch.setattr(readiness, "free_bytes", lambda _: free)
    error = failing(cfg)["disk"]
    assert "1.0 MiB free" in str(error)
    assert "checkpoint.keep_last" in str(error)


def test_epochs_that_are_done_need_no_more_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cures_core.planning.disk import disk_bytes
    from tasks.planning import policy_shape

    cfg = config(tmp_path, epochs=10)
    shape = policy_shape(cfg)
    whole, rest = (disk_bytes(cfg, shape.parameters, shape.trained, done) for done in (0, 9))
    assert rest < whole
    monkeypatch.setattr(readiness, "free_bytes", lambda _: rest)
    assert "disk" in failing(cfg)
    monkeypatch.setattr(readiness, "noted_epochs", lambda *_: list(range(1, 10)))
    assert not failing(cfg)


PROFILE = """
[data]
path = "{path}"
[rollout]
max_new_tokens = 8
[training]
learning_rate = 1e-4
"""


def cures(folder: Path, *words: str) -> Any:
    profile = folder / "p.toml"
    profile.write_text(PROFILE.format(path=folder / "set.jsonl"))
    return CliRunner().invoke(app, ["run", "--config", str(profile), "--set", f"store.url={folder}/store", *words])


def test_the_command_checks_and_does_only_that(tmp_path: Path) -> None:
    config_in(tmp_path, 1e-4)
    good = cures(tmp_path, "--check", "--json")
    assert good.exit_code == 0
    assert {one["status"] for one in json.loads(good.stdout)} == {"ok"}
    assert not (tmp_path / "store" / "runs").exists()
    bad = cures(tmp_path, "--check", "--set", f"snapshot.remote={blocked(tmp_path)}")
    assert bad.exit_code == 2
    found = {line.split()[1]: line.split()[0] for line in bad.stdout.splitlines()}
    assert (found["snapshots"], found["prompts"]) == ("missing", "ok")
    assert "snapshot.remote" in bad.stdout


def test_a_run_ends_before_a_server_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config_in(tmp_path, 1e-4)
    monkeypatch.setattr("flows.local.temporary_server.temporary_server", lambda _: pytest.fail("a server was started"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    outcome = cures(tmp_path, "--set", f"snapshot.remote={blocked(tmp_path)}")
    assert isinstance(outcome.exception, ConfigError)
    assert "snapshot.remote" in str(outcome.exception)
