"""The commands of the worlds from end to end, with a policy that has hardly been taught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.curriculum import base_policies, behaviour, kept
from benchmarks.curriculum.worlds import scratchpad
from cures_core.errors import ConfigError


@pytest.fixture(autouse=True)
def _tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = scratchpad.POLICY.model_copy(update={"steps": 8, "hidden_size": 16, "layers": 1, "heads": 2})
    monkeypatch.setattr(scratchpad, "POLICY", tiny)
    monkeypatch.setattr(base_policies.warm_started, "__defaults__", (tmp_path / "policies",))
    monkeypatch.setattr(kept, "RESULTS", tmp_path / "worlds")
    monkeypatch.setattr(behaviour, "BEHAVIOUR", tmp_path / "behaviour")


def told(*words: str) -> Any:
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def test_arms_are_run_kept_and_compared_again_from_what_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no arm of world scratchpad, pool waste is kept; run: python -m benchmarks"):
        told("accounts")
    words = ["--world", "scratchpad", "--methods", "uniform", "--seeds", "1", "--budget", "256", "--jobs", "1"]
    first = told("curriculum", *words, "--out", str(tmp_path / "out"), "--keep")
    [again] = told("accounts", "--baseline", "uniform")
    assert again["rows"] == first["rows"]
    assert set(first["rows"][0]["to_90"]) == {"rollouts", "tokens", "seconds", "processor_seconds", "updates"}
    [arm] = kept.load("scratchpad").values()
    assert arm["made"]["processor"]
    assert str(tmp_path) not in arm["made"]["command"]
    # The same again elsewhere: what is kept is not run, and stays as it was made.
    before = (tmp_path / "worlds" / "scratchpad.json").read_bytes()
    assert told("curriculum", *words, "--out", str(tmp_path / "other"), "--keep")["rows"] == first["rows"]
    assert (tmp_path / "worlds" / "scratchpad.json").read_bytes() == before
    assert not list((tmp_path / "other").rglob("*.arm.json"))
    assert "<svg" in (tmp_path / "out" / "scratchpad" / "waste" / "curriculum.html").read_text()


@pytest.mark.parametrize("baseline", ["best", "raft"])
def test_without_a_baseline_no_arm_is_run(baseline: str, tmp_path: Path) -> None:
    words = ["--world", "scratchpad", "--methods", "cures,oracle", "--out", str(tmp_path / "out")]
    with pytest.raises(ConfigError, match=f"--baseline {baseline}: put .*raft"):
        told("curriculum", *words, "--baseline", baseline)
    assert not (tmp_path / "out").exists()


def test_behaviour_is_measured_kept_and_compared_with_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["world", "--prompts", "2", "--samples", "4", "--norms", "1"]
    first = told(*few, "--keep")
    assert "factors" not in first
    monkeypatch.setattr(behaviour, "REFERENCE", "scratchpad-0")
    again = told(*few)
    assert again["factors"]["entropy"] == 1.0
    assert again["summary"] == first["summary"]
