"""What the command says and how it ends where nothing can be run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from cures_core.config.loading import load_config
from cures_core.config.run import RunConfig
from tests.end_to_end.pipeline import PROJECT, Outcome, cures, write_profile

QUICKSTART = PROJECT / "configs" / "quickstart.toml"


def failed(outcome: Outcome, code: int) -> str:
    """The message of a command that ended with this code, without a traceback."""
    assert outcome.code == code, outcome
    assert "Traceback" not in outcome.err
    return outcome.err


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training.learnig_rate=1", ["training.learnig_rate", "no such key", "training.learning_rate"]),
        ("seed=-1", ["seed", "greater than or equal to 0", "-1"]),
        ("epochs=many", ["epochs", "integer", "many"]),
        ("curriculum.rollouts_per_step=30", ["curriculum", "below 1 x prompts_per_step 40"]),
        ("curriculum.type=magic", ["curriculum", "magic", "uniform"]),
        ('promotion.suites=["other"]', ["promotion.suites", "other", "heldout"]),
        ("evaluation.suites=[]", ["evaluation.suites is empty", "frontier there, or run a copy", "[promotion]"]),
        ('faults=["here"]', ["faults", "POINT=ACTION"]),
        ("seed", ["KEY=VALUE"]),
    ],
)
def test_a_bad_setting_names_the_key_and_what_would_be_right(setting: str, words: list[str], tmp_path: Path) -> None:
    message = failed(cures("run", "--config", QUICKSTART, "--set", setting, cwd=tmp_path), 2)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], ["--config configs/quickstart.toml"]),
        (["run", "--config", "none.toml"], ["none.toml", "no such configuration"]),
        (["run", "--resume", "quickstart-0000"], ["no run quickstart-0000"]),
        (["run", "--resume", "a", "--config", QUICKSTART], ["--resume", "leave --config away"]),
        (["run", "--config", QUICKSTART, "--set", "data.path=none.jsonl"], ["none.jsonl", "data.path"]),
        (["run", "--wrong"], ["--wrong"]),
        (["runs", "show", "none"], ["no run none"]),
        (["posterior", "show", "--run", "none"], ["no run none"]),
        (["promote", "none"], ["no run none"]),
        (["promote", "none", "--override"], ["--why"]),
        (["models", "show", "none"], ["no model none", "models there: none"]),
        (["rollback", "none", "--why", "slow"], ["no model none"]),
        (["data", "stats", "none.jsonl"], ["none.jsonl"]),
        (["up"], ["prefect.yaml"]),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    message = failed(cures(*arguments, cwd=tmp_path), 2)
    assert all(word in message for word in words), message


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    outcome = cures("--debug", "run", "--config", "none.toml", cwd=tmp_path)
    assert "Traceback" in outcome.err


def test_print_config_prints_what_will_hold(tmp_path: Path) -> None:
    outcome = cures("run", "--config", QUICKSTART, "--set", "seed=9", "--print-config", cwd=tmp_path)
    printed = RunConfig.model_validate(json.loads(outcome.out))
    assert printed == load_config(QUICKSTART, ["seed=9"])
    assert list(tmp_path.iterdir()) == []


def test_runs_of_an_empty_store(tmp_path: Path) -> None:
    assert json.loads(cures("runs", "list", "--json", cwd=tmp_path).out) == []
    assert "no runs" in cures("runs", "list", cwd=tmp_path).out


def test_the_deployments_hold_the_quickstart() -> None:
    project = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
    holders = [d for d in project["deployments"] if "config" in d.get("parameters", {})]
    assert {d["name"] for d in holders} == {"train", "train-nightly", "retrain-on-data-change"}
    for deployment in holders:
        assert RunConfig.model_validate(deployment["parameters"]["config"]) == load_config(QUICKSTART)


@pytest.mark.parametrize("profile", sorted((PROJECT / "configs").glob("*.toml")), ids=lambda p: p.stem)
def test_every_profile_is_valid(profile: Path) -> None:
    assert load_config(profile).name == profile.stem


@pytest.mark.end_to_end
def test_too_many_bad_rows_end_with_exit_code_3_and_a_table(tmp_path: Path) -> None:
    rows = [{"problem": f"What is {i} plus 1?", "answer": str(i + 1)} for i in range(30)]
    bad = [{"problem": "", "answer": "1"}] * 5
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *bad]))
    profile = write_profile(tmp_path)
    message = failed(cures("run", "--config", profile, "--set", "data.path=set.jsonl", cwd=tmp_path), 3)
    assert "5 of 35 rows rejected" in message
    assert "empty_problem" in message


CANARY = "canary-4f9c1e"


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--config", QUICKSTART, "--set", f"store.endpoint_url=http://user:{CANARY}@host:9000"],
        ["runs", "list", "--store", f"s3://KEY:{CANARY}@bucket/prefix"],
        ["data", "validate", f"https://{CANARY}@host/set.jsonl"],
        ["data", "validate", "set.jsonl", "--suite", f"s=https://user:{CANARY}@host/set.jsonl"],
        ["deploy", "--api-url", f"http://user:{CANARY}@127.0.0.1:4200/api"],
    ],
)
def test_a_password_in_an_address_is_refused_and_written_nowhere(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").touch()
    outcome = cures(*command, cwd=tmp_path)
    assert "holds a user or a password" in failed(outcome, 2)
    assert CANARY not in outcome.out + outcome.err
    assert [p for p in tmp_path.rglob("*") if p.is_file() and CANARY.encode() in p.read_bytes()] == []
