"""The contract of the loop: who is called when, with what, and what a step is counted and reported as.

Engine, verifier, trainer and curriculum only write down their calls, into one list, and play a script.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from cures_core.curriculum.ask_tell import Batch
from cures_core.epoch import Progress, advance, roll_out, run_epoch, step_metrics
from cures_core.errors import TrainingDiverged
from cures_core.rewards.length import AS_JUDGED, LengthRule
from cures_core.terms import FinishReason, Group, Outcome, Prompt, Request, Rollout, Verdict

C, W, U = Outcome.CORRECT, Outcome.WRONG, Outcome.UNKNOWN

Round = list[str]
"""Requests of one round, each a string of the verdicts to come: "cwu" is a prompt with three rollouts."""

BUDGET = 20


@dataclass
class Script:
    """Rounds of each step, and everything that was called, in order."""

    steps: list[list[Round]]
    keep: slice = field(default_factory=lambda: slice(None))
    """Which of a step's groups go into the loss."""
    calls: list[tuple[str, Any]] = field(default_factory=list)

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def of(self, name: str) -> list[Any]:
        """What the calls of one kind were given."""
        return [given for called, given in self.calls if called == name]


class ScriptedCurriculum:
    def __init__(self, script: Script) -> None:
        self._script = script
        self._step = self._round = 0
        self._told: list[Group] = []

    @property
    def rollouts_per_step(self) -> int:
        return BUDGET

    def ask(self, budget: int) -> list[Request]:
        self._script.calls.append(("ask", budget))
        wanted = self._script.steps[self._step][self._round]
        self._round += 1
        return [
            Request(f"{self._step}-{self._round}-{i}", Prompt(f"p{i}", kinds, f"gold {kinds}"), len(kinds), seed=7)
            for i, kinds in enumerate(wanted)
        ]

    def tell(self, groups: Sequence[Group]) -> None:
        self._script.calls.append(("tell", list(groups)))
        self._told += groups

    def ready(self) -> Batch | None:
        if self._round < len(self._script.steps[self._step]):
            return None
        batch = Batch(self._told[self._script.keep], f"step {self._step}", {"groups": float(len(self._told))})
        self._step, self._round, self._told = self._step + 1, 0, []
        return batch

    def state_dict(self) -> dict[str, Any]:
        raise AssertionError("saving is for who commits")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        raise AssertionError("loading is for who starts the epoch")


class RecordingEngine:
    def __init__(self, script: Script) -> None:
        self._script = script

    @property
    def cfg(self) -> Any:
        raise AssertionError("how it samples is the engine's affair")

    def generate(self, requests: Sequence[Request], **_: Any) -> list[list[Rollout]]:
        """The text of a rollout is the letter of its verdict; the i-th has i + 1 tokens, and a `w` is cut short."""
        self._script.calls.append(("generate", list(requests)))
        return [[self._rollout(q, i, kind) for i, kind in enumerate(q.prompt.problem)] for q in requests]

    def _rollout(self, request: Request, i: int, kind: str) -> Rollout:
        reason = FinishReason.LENGTH if kind == "w" else FinishReason.STOP
        return Rollout(request.id, i, (1,), (2,) * (i + 1), (-1.0,) * (i + 1), kind, reason)

    def sleep(self) -> None:
        self._script.calls.append(("sleep", None))

    def sync(self, model: Any) -> None:
        self._script.calls.append(("sync", model))

    def retune(self, cfg: Any) -> None:
        raise AssertionError("not in training")

    def close(self) -> None:
        raise AssertionError("the engine is not the loop's to close")


class RecordingVerifier:
    """A verdict costs one token of a judge."""

    def __init__(self, script: Script) -> None:
        self._script, self._told = script, 0

    def judge(self, items: Sequence[tuple[str, Prompt]]) -> list[Verdict]:
        self._script.calls.append(("judge", [(text, prompt.answer) for text, prompt in items]))
        return [Verdict({"c": C, "w": W, "u": U}[text]) for text, _ in items]

    def figures(self) -> dict[str, float]:
        told = self._script.of("judge")
        judged, self._told = sum(map(len, told[self._told :])), len(told)
        return {"judge_prompt_tokens": float(judged)}

    def check_gold(self, gold: str) -> Any:
        raise AssertionError("gold answers are checked before training")

    def close(self) -> None:
        raise AssertionError("the verifier is not the loop's to close")


class RecordingTrainer:
    """Every update makes another model."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._updates = 0

    @property
    def model(self) -> str:
        return f"model after {self._updates} updates"

    def update(self, groups: Sequence[Group]) -> Mapping[str, float]:
        self._script.calls.append(("update", list(groups)))
        self._updates += 1
        return {"updated": 1.0, "loss": 0.25 * self._updates}


def play(
    script: Script,
    progress: Progress | None = None,
    trainer: RecordingTrainer | None = None,
    lengths: LengthRule = AS_JUDGED,
) -> Progress:
    """Run all steps of the script; commits are among its calls."""
    progress = progress or Progress()

    def commit(*given: Any) -> None:
        script.calls.append(("commit", given))

    return run_epoch(
        progress,
        progress.step + len(script.steps),
        ScriptedCurriculum(script),
        RecordingEngine(script),
        RecordingVerifier(script),
        trainer or RecordingTrainer(script),
        commit,
        lengths,
    )


def test_a_step_calls_each_part_once_a_round_and_then_updates() -> None:
    script = Script([[["cw", "u"], ["ww"]], [["c"]]])
    play(script)
    one_round = ["ask", "generate", "judge", "tell"]
    end = ["sleep", "update", "sync", "commit"]
    assert script.names() == [*one_round, *one_round, *end, *one_round, *end]


def test_each_ask_gets_what_is_left_of_the_steps_budget() -> None:
    script = Script([[["cw", "uuu"], ["ww"], ["c"]], [["cc"], ["w"]]])
    play(script)
    assert script.of("ask") == [BUDGET, BUDGET - 5, BUDGET - 7, BUDGET, BUDGET - 2]


def test_what_is_asked_is_generated_judged_against_its_gold_answer_and_told_once() -> None:
    script = Script([[["cw", "u"], ["wwc"]]])
    play(script)
    (first, second) = script.of("generate")
    assert [q.prompt.problem for q in (*first, *second)] == ["cw", "u", "wwc"]
    assert script.of("judge") == [
        [("c", "gold cw"), ("w", "gold cw"), ("u", "gold u")],
        [("w", "gold wwc"), ("w", "gold wwc"), ("c", "gold wwc")],
    ]
    told = script.of("tell")
    assert [[g.request for g in groups] for groups in told] == [first, second]
    assert [[[v.outcome for v in g.verdicts] for g in groups] for groups in told] == [[[C, W], [U]], [[W, W, C]]]
    for group in (*told[0], *told[1]):
        assert [r.text for r in group.rollouts] == list(group.request.prompt.problem)
        assert {r.request_id for r in group.rollouts} == {group.request.id}


def test_the_update_gets_the_batch_and_what_follows_gets_what_the_update_made() -> None:
    script = Script([[["cw", "ww", "c"]], [["cc"]]], keep=slice(1, None))
    play(script)
    told = script.of("tell")
    assert script.of("update") == [told[0][1:], told[1][1:]]
    assert script.of("sync") == ["model after 1 updates", "model after 2 updates"]


def test_what_verdicts_have_cost_is_in_their_steps_metrics() -> None:
    script = Script([[["cw", "ww"], ["uuu"]], [["c"]]], keep=slice(0, 1))
    play(script)
    assert [row["judge_prompt_tokens"] for _, _, row, _ in script.of("commit")] == [7.0, 1.0]


def test_all_that_was_rolled_out_is_paid_and_committed_discarded_or_not() -> None:
    script = Script([[["cw", "ww"], ["uuu"]], [["c"]]], keep=slice(0, 1))
    end = play(script, Progress(step=4, rollouts=100, tokens=1000))
    # A group of n has 1 + 2 + ... + n tokens.
    first = Progress(step=5, rollouts=107, tokens=1000 + 3 + 3 + 6)
    second = Progress(step=6, rollouts=108, tokens=1000 + 12 + 1)
    assert end == second
    told = script.of("tell")
    commits = script.of("commit")
    assert [(progress, groups) for progress, groups, _, _ in commits] == [(first, told[0] + told[1]), (second, told[2])]
    rows = [row for _, _, row, _ in commits]
    assert [(row["step"], row["rollouts_total"], row["tokens_total"]) for row in rows] == [
        (5, 107, 1012),
        (6, 108, 1013),
    ]


def test_means_are_over_known_verdicts_and_over_all_rollouts() -> None:
    script = Script([[["cw", "cuu"], ["u"]]], keep=slice(0, 0))
    play(script)
    [(_, _, row, _)] = script.of("commit")
    assert row == {
        "schema": 1.0,
        "step": 1,
        "rollouts_total": 6,
        "tokens_total": 3 + 6 + 1,
        "reward_mean": 2 / 3,  # of three known verdicts, also those that are not in the batch
        "truncated_share": 1 / 6,
        "truncated_wrong_share": 1 / 6,
        "completion_tokens_mean": 10 / 6,
        "sampled_entropy": 1.0,
        "reason": "step 0",
        "groups": 3.0,
        "updated": 1.0,
        "loss": 0.25,
        "judge_prompt_tokens": 6.0,
    }


def test_truncated_rollouts_are_told_and_trained_on_by_the_rule() -> None:
    script = Script([[["cw", "wwc"]]])
    play(script, lengths=LengthRule("masked"))
    [told], [batch] = script.of("tell"), script.of("update")
    assert [[v.masked for v in g.verdicts] for g in told] == [[False, True], [True, True, False]]
    assert (told, [g.failures for g in told]) == (batch, [1, 2])  # the posterior hears of them
    [(_, _, row, _)] = script.of("commit")
    assert (row["masked_share"], row["truncated_share"], row["reward_mean"]) == (0.6, 0.6, 0.4)


def test_the_share_of_prompts_that_taught_is_of_all_that_were_drawn() -> None:
    def rolled_out(name: str, prompt: str) -> Group:
        rollout = Rollout(name, 0, (1,), (2,), (-1.0,), "", FinishReason.STOP)
        return Group(Request(name, Prompt(prompt, "", ""), 1, 0), [rollout], [Verdict(C)])

    told = [rolled_out(f"1-0-{i}", f"p{i}") for i in range(4)] + [rolled_out("1-1-0", "p0")]  # p0 in both rounds
    assert step_metrics(Progress(1, 5, 5), Batch(told, ""), told, {"prompts_taught": 1.0})["taught_share"] == 0.25
    assert "taught_share" not in step_metrics(Progress(1, 5, 5), Batch(told, ""), told, {})


@pytest.mark.parametrize(("logprobs", "entropy"), [([(0.0,), (0.0, 0.0)], "0.0"), ([(-1.0,), (-0.5, -3.0)], "1.5")])
def test_entropy_is_estimated_over_all_rollouts_of_a_step(logprobs: list[tuple[float, ...]], entropy: str) -> None:
    """Also of a policy that always says the same, whose groups teach nothing."""
    rollouts = [Rollout("r", i, (1,), (2,) * len(p), p, "", FinishReason.STOP) for i, p in enumerate(logprobs)]
    told = [Group(Request("r", Prompt("p", "", ""), 2, 0), rollouts, [Verdict(C), Verdict(C)])]
    row = step_metrics(Progress(1, 2, 3), Batch(told, ""), told, {"updated": 0.0})
    assert str(row["sampled_entropy"]) == entropy  # 0, not -0


def test_weighted_rewards_are_told_beside_the_share_of_right_answers() -> None:
    request = Request("r", Prompt("p", "", ""), 4, 0)
    rollouts = [Rollout("r", i, (1,), (2,), (-1.0,), "", FinishReason.STOP) for i in range(4)]
    rewards = [(C, 1.0), (W, 0.25), (W, 0.25), (U, 9.0)]
    told = [Group(request, rollouts, [Verdict(outcome, reward=reward) for outcome, reward in rewards])]
    row = step_metrics(Progress(1, 4, 4), Batch(told, ""), told, {})
    assert (row["reward_mean"], row["correct_share"]) == (0.5, 1 / 3)


def test_a_step_with_nothing_to_ask_for_is_a_step() -> None:
    script = Script([[[]], [["cw"]]])
    assert play(script) == Progress(step=2, rollouts=2, tokens=3)
    assert script.of("update")[0] == []
    progress, told, row, _ = script.of("commit")[0]
    assert (progress, told) == (Progress(step=1), [])
    assert not {"reward_mean", "truncated_share", "completion_tokens_mean", "sampled_entropy"} & set(row)


def test_an_epoch_that_is_done_calls_nobody() -> None:
    script = Script([])
    assert play(script, Progress(step=3, rollouts=9, tokens=27)) == Progress(3, 9, 27)
    assert script.calls == []


def test_an_update_that_fails_commits_nothing() -> None:
    class Diverging(RecordingTrainer):
        def update(self, groups: Sequence[Group]) -> Mapping[str, float]:
            raise TrainingDiverged("no")

    script = Script([[["cw"]]])
    with pytest.raises(TrainingDiverged):
        play(script, trainer=Diverging(script))
    assert script.names()[-2:] == ["tell", "sleep"]


def test_a_steps_seconds_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=10)
    monkeypatch.setattr("cures_core.epoch.time.monotonic", lambda: next(clock))
    script = Script([[["c"]], [["c"], ["w"]]])
    play(script)
    assert [seconds for *_, seconds in script.of("commit")] == [10, 10]


def test_a_group_is_made_of_its_own_rollouts_and_verdicts() -> None:
    """Judged in one call, whatever the number of requests, and dealt out again in order."""
    script = Script([])
    requests = [Request(str(i), Prompt(str(i), kinds, ""), len(kinds), 0) for i, kinds in enumerate(["cwc", "u", "ww"])]
    groups = roll_out(requests, RecordingEngine(script), RecordingVerifier(script))
    assert script.names() == ["generate", "judge"]
    assert [g.request for g in groups] == requests
    assert [[v.outcome for v in g.verdicts] for g in groups] == [[C, W, C], [U], [W, W]]
    assert roll_out([], RecordingEngine(script), RecordingVerifier(script)) == []
    assert advance(Progress(1, 2, 3), groups) == Progress(2, 8, 3 + 6 + 1 + 3)


def test_an_engine_that_leaves_a_request_out_is_an_error() -> None:
    class Forgetful(RecordingEngine):
        def generate(self, requests: Sequence[Request], **_: Any) -> list[list[Rollout]]:
            return super().generate(requests)[:-1]

    script = Script([])
    requests = [Request(str(i), Prompt(str(i), "c", ""), 1, 0) for i in range(2)]
    with pytest.raises(ValueError, match="shorter"):
        roll_out(requests, Forgetful(script), RecordingVerifier(script))
