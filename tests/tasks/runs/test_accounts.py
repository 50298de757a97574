"""What a run has cost, from its records and steps: all that was paid, and once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cures_core.config.run import RunConfig
from cures_core.report.accounts import account_rows
from cures_core.report.run_data import Spent, Wasted
from tasks.runs.figures import EpochFigures, EvaluateFigures, PolicyFigures, PriorFigures
from tasks.runs.reading import RunRecords
from tasks.runs.records import Record
from tasks.runs.training import Metrics, accounts, training_seconds, updates, wasted
from tests.tasks.stages.figures import figures_of


def record(stage: str, seconds: float, **figures: Any) -> Record[Any]:
    return Record(stage=stage, key="k", inputs={}, figures=figures_of(stage, **figures), seconds=seconds)


def row(step: int, **more: float) -> Metrics:
    return {"step": float(step), "updated": 1.0, "seconds": 2.0, **more}


ROWS = [row(1), row(2), row(3, updated=0.0), row(4)]
EPOCHS: dict[int, Record[EpochFigures]] = {
    1: record("train_epoch", 3.0, step=2, rollouts=64, tokens=640),  # its last attempt; both steps took 4 s
    2: record("train_epoch", 5.5, step=4, rollouts=128, tokens=1280),
}
PRIOR: Record[PriorFigures] = record("estimate_prior", 1.5, rollouts=10, tokens=100)
SCORED: dict[int, Record[EvaluateFigures]] = {
    0: record("evaluate_checkpoint", 7.0, rollouts=20, tokens=200),
    2: record("evaluate_checkpoint", 8.0, rollouts=20, tokens=220),
}


def test_an_interrupted_epoch_took_as_long_as_its_steps() -> None:
    assert training_seconds({1: EPOCHS[1]}, ROWS) == 4.0
    assert training_seconds(EPOCHS, ROWS) == 4.0 + 5.5
    assert training_seconds({}, []) == 0.0


def test_updates_are_steps_that_changed_the_policy() -> None:
    assert [updates(ROWS, last) for last in (0, 2, 3, 4)] == [0, 2, 2, 3]


def test_what_judges_read_and_wrote_has_its_account() -> None:
    cost = {"judge_prompt_tokens": 70.0, "judge_completion_tokens": 5.0}
    prior: Record[PriorFigures] = record("estimate_prior", 1.5, rollouts=10, tokens=100, judging=cost)
    scored: dict[int, Record[EvaluateFigures]] = {
        0: record("evaluate_checkpoint", 7.0, rollouts=20, tokens=200, judging=cost),
        1: record("evaluate_checkpoint", 7.0, rollouts=20, tokens=200),
    }
    rows = [row(1, **cost), row(2, **cost), row(3)]
    found = accounts(RunRecords(prior=prior, epochs=EPOCHS, evaluations=scored), rows)
    assert {name: one.judge_tokens for name, one in found.items()} == {"prior": 75, "train": 150, "eval": 75}
    assert account_rows(found, Wasted())[-1] == ("judges' tokens, read and written", "", "300", "", "")
    assert account_rows(accounts(RunRecords(prior=PRIOR), []), Wasted())[-1][0] == "all of it"


def test_every_kind_of_work_has_its_account() -> None:
    policy: Record[PolicyFigures] = record("prepare_policy", 30.0, steps=1400.0)
    records = RunRecords(policy=policy, prior=PRIOR, epochs=EPOCHS, evaluations=SCORED)
    assert accounts(records, ROWS) == {
        "warm_start": Spent(rollouts=0, tokens=0, seconds=30.0, updates=1400),
        "prior": Spent(rollouts=10, tokens=100, seconds=1.5),
        "train": Spent(rollouts=128, tokens=1280, seconds=9.5, updates=3),
        "eval": Spent(rollouts=40, tokens=420, seconds=15.0),
    }
    pretrained: Record[PolicyFigures] = record("prepare_policy", 30.0)
    assert list(accounts(RunRecords(policy=pretrained, prior=PRIOR), [])) == ["prior", "train", "eval"]


def config(allocation: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "data": {"path": "t"},
            "rollout": {"max_new_tokens": 4},
            "training": {"learning_rate": 1e-3},
            "curriculum": {
                "type": "cures",
                "prompts_per_step": 4,
                "rollouts_per_step": 16,
                "allocation": {"type": allocation},
            },
        }
    )


def test_first_tries_and_unused_rollouts_are_told_where_every_step_tells_them() -> None:
    step: dict[str, float] = {"groups": 4.0, "step_rollouts": 10.0, "rollouts_trained": 6.0, "tokens_trained": 20.0}
    rows = [row(i, **step, tokens_total=50.0 * i) for i in (1, 2)]
    assert wasted(config("screen"), rows) == Wasted(first_tries=8, unused=8, unused_tokens=60)
    assert wasted(config("equal"), rows).first_tries is None
    older = [row(1, groups=4.0, step_rollouts=10.0, tokens_trained=20.0), rows[1]]  # before that was counted
    assert wasted(config("screen"), older) == Wasted(first_tries=8)
    assert wasted(config("screen"), []) == Wasted()


@pytest.mark.parametrize("kept", [True, False])
def test_examples_show_failures_first_and_the_same_item_before(kept: bool, tmp_path: Path) -> None:
    from tasks.runs.examples import examples
    from tasks.storage.local import LocalStore

    store = LocalStore(tmp_path)
    outcomes = {"a": ("wrong", "correct"), "b": ("correct", "wrong"), "c": ("wrong", "unknown"), "d": ("correct",) * 2}
    outcomes |= {f"e{i}": ("wrong", "correct") for i in range(9)}
    found = []
    for turn, key in enumerate(("first", "last")):
        folder = tmp_path / "made" / key
        folder.mkdir(parents=True)
        rows = [
            {
                "suite": "s",
                "id": name,
                "problem": name,
                "gold": "1",
                "completion": f"{name}{turn}",
                "outcome": both[turn],
            }
            for name, both in outcomes.items()
            if kept or turn
        ]
        (folder / "examples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
        manifest = store.publish_files(f"artifacts/{key}", folder)
        found.append(
            record("evaluate_checkpoint", 1.0).model_copy(
                update={"key": key, "files": f"artifacts/{key}", "manifest": manifest}
            )
        )
    hidden = examples(store, found[0], found[1], lambda text: f"<{len(text)}>")
    assert {(one.problem[0], one.gold, one.completion[0]) for one in hidden} == {("<", "<1>", "<")}
    shown = examples(store, found[0], found[1])
    assert len(shown) == 8
    if kept:
        assert [one.problem for one in shown][:3] == ["b", "c", "a"]
        assert shown[-1].problem == "d"
        assert (shown[0].before, shown[0].before_outcome, shown[0].completion) == ("b0", "correct", "b1")
    else:
        assert {one.before_outcome for one in shown} == {""}
        assert [one.problem for one in shown][:2] == ["b", "c"]
