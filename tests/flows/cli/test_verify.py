from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cures_core.errors import CuresError
from cures_core.events import StepDone
from flows.cli.console import stage_line, step_line
from flows.cli.main import app
from tasks.progress import StageEnded
from tasks.runs.records import Record
from tests.cures_core.prompts.files import jsonl
from tests.end_to_end.pipeline import PROFILE
from tests.tasks.stages.figures import figures_of


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["verify", *(str(a) for a in arguments)])
    if isinstance(result.exception, CuresError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_verdict_is_explained() -> None:
    assert run("so \\boxed{1/2}", "0.5", "--type", "numeric") == "correct  1/2  (box)\n"
    found = json.loads(run("7, no: 8", "7", "--type", "numeric", "--json"))
    assert found["counts"] == {"wrong": 1}
    assert found["verdicts"] == [{"outcome": "wrong", "extracted": "8", "rule": "last", "reason": "", "reward": None}]
    assert "gold answer 'many' cannot be used: not a number" in run("7", "many", "--type", "numeric")


def test_pairs_come_from_a_file_and_rewards_from_a_profile(tmp_path: Path) -> None:
    reward = """
[reward]
type = "weighted"
[reward.answer]
type = "numeric"
[[reward.format]]
type = "box"
weight = 0.25
"""
    (tmp_path / "tiny.toml").write_text(PROFILE + reward)
    pairs = jsonl(tmp_path / "pairs.jsonl", [{"completion": t, "answer": "7"} for t in ("\\boxed{7}", "7", "8")])
    found = json.loads(run("--from", pairs, "--config", tmp_path / "tiny.toml", "--json"))
    assert [v["reward"] for v in found["verdicts"]] == [1.25, 1.0, 0.0]
    text = run("--from", pairs, "--config", tmp_path / "tiny.toml")
    assert text.splitlines()[0] == "correct  7  (box)  paid 1.25"
    assert text.splitlines()[-1] == "2 correct, 1 wrong"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a completion and a gold answer"),
        (["7"], "name a completion and a gold answer"),
        (["7", "7", "--from", "x"], "name a completion and a gold answer"),
        (["7", "7", "--type", "oracle"], "use exact, numeric, math or choice"),
        (["--from", "nowhere.jsonl"], "no such file"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(CuresError, match=message):
        run(*arguments)


@pytest.mark.parametrize("row", ["{", "[]", '{"completion": "7"}', '{"completion": 7, "answer": "7"}'])
def test_a_bad_pair_is_named_by_its_line(row: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "pairs.jsonl", [{"completion": "7", "answer": "7"}, row])
    with pytest.raises(CuresError, match=r"pairs\.jsonl:2: "):
        run("--from", path)


def test_a_step_says_what_taught_and_warns_where_entropy_is_gone() -> None:
    def step(alarm: float = 0.05, **metrics: float) -> str:
        event = StepDone(epoch=1, seconds=2.0, last_step=2, metrics={"step": 1, "reward_mean": 0.5, **metrics})
        return step_line(event, 10.0, alarm)

    screened = step(taught_share=0.625, informative_share=0.0, sampled_entropy=0.3125, entropy=2.0)
    assert "62 % of the prompts taught (0 % right and wrong), entropy 0.31, " in screened
    assert "WARNING" not in screened
    assert "25 % of the prompts right and wrong, 0 tokens/s" in step(informative_share=0.25)  # of an earlier version
    gone = step(taught_share=0.0, sampled_entropy=0.0)
    assert gone.endswith("; WARNING: entropy below 0.05 nats a token, the policy tries nothing else any more")
    assert "WARNING" not in step(alarm=0.0, taught_share=0.5, sampled_entropy=0.0)


def test_unknown_verdicts_above_one_per_cent_are_a_visible_warning() -> None:
    def step(**metrics: float) -> str:
        return step_line(StepDone(epoch=1, seconds=1.0, last_step=2, metrics={"step": 1, **metrics}), 10.0)

    def stage(**figures: int) -> str:
        found = figures_of("estimate_prior", **figures)
        record = Record(stage="estimate_prior", key="k", inputs={}, figures=found)
        return stage_line(StageEnded("estimate_prior", record, cached=False))

    assert "WARNING" not in step(reward_mean=0.5, unknown_share=0.01)
    assert step(reward_mean=0.5, unknown_share=0.02).endswith("; WARNING: 2.0 % of the verdicts unknown")
    assert step(unknown_share=1.0).startswith("step 1/2: no verdict, ")
    assert stage(rollouts=100, unknown=3).endswith("; WARNING: 3.0 % of the verdicts unknown")
    assert "WARNING" not in stage(rollouts=0, unknown=0)


def test_a_pair_is_judged_by_the_verifier_of_its_source(tmp_path: Path) -> None:
    reward = """
[reward]
type = "exact"
[[reward.by_source]]
sources = ["quiz"]
verifier = { type = "choice" }
"""
    (tmp_path / "tiny.toml").write_text(PROFILE + reward)
    pairs = jsonl(
        tmp_path / "pairs.jsonl",
        [
            {"completion": "(B)", "answer": "B", "source": "quiz"},
            {"completion": "(B)", "answer": "B"},
            {"completion": "(B)", "answer": "7", "source": "quiz"},
            {"completion": "(B)", "answer": "B", "source": "else", "verifier": "choice"},
        ],
    )
    found = json.loads(run("--from", pairs, "--config", tmp_path / "tiny.toml", "--json"))
    assert [v["outcome"] for v in found["verdicts"]] == ["correct", "wrong", "unknown", "correct"]
    assert found["golds_refused"] == {"7": "not one of the letters"}
