"""Rewards of format: what is paid, what stays the answer's alone, and what training makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from cures_core.config.rewards import NumericConfig, RewardConfig, WeightedConfig
from cures_core.curriculum.ask_tell import Batch
from cures_core.epoch import Progress, step_metrics
from cures_core.rewards import make_verifier
from cures_core.rewards.verifier import Verifier
from cures_core.terms import FinishReason, Group, Outcome, Prompt, Request, Rollout, Verdict
from cures_core.testing.verifier import HOSTILE, VerifierExam
from cures_core.training.advantages import batch_samples
from tests.cures_core.rewards.processes import everything

BOX = {"type": "box", "weight": 0.2}
TAGS = {"type": "tags", "tags": ["think", "answer"], "weight": 0.1}


def weighted(*rules: dict[str, Any], **options: Any) -> WeightedConfig:
    return WeightedConfig.model_validate({"answer": {"type": "numeric"}, "format": rules, **options})


def judged(cfg: WeightedConfig, *completions: str) -> list[tuple[str, float | None]]:
    """(outcome, reward) against the gold answer 7."""
    with make_verifier(cfg) as verifier:
        return [(v.outcome.value, v.reward) for v in verifier.judge_pairs([(text, "7") for text in completions])]


class TestWeighted(VerifierExam):
    right = ((r"\boxed{1,234}", "1234"), ("The answer is 3/4 cup.", "0.75"))
    wrong = ((r"\boxed{12}", "1234"), ("no", "7"), (r"7 \boxed{", "7"))

    def make(self) -> Verifier:
        return make_verifier(weighted(BOX, TAGS))


def test_answer_and_format_are_paid_by_their_weights() -> None:
    cfg = weighted(BOX, TAGS, answer_weight=2.0)
    whole = r"<think>hm</think> <answer>\boxed{7}</answer>"
    assert judged(cfg, whole, r"\boxed{7}", "7", r"\boxed{8}", "8") == [
        ("correct", pytest.approx(2.3)),
        ("correct", pytest.approx(2.2)),
        ("correct", pytest.approx(2.0)),
        ("wrong", pytest.approx(0.2)),
        ("wrong", pytest.approx(0.0)),
    ]


@pytest.mark.parametrize(
    ("completion", "kept"),
    [
        (r"\boxed{7}", True),
        (r"so \fbox{7}.", True),
        (r"\boxed{6} no, \boxed{7}", False),
        (r"\boxed{7", False),
        (r"\boxed{}", False),
        ("7", False),
    ],
)
def test_one_closed_box(completion: str, kept: bool) -> None:
    assert judged(weighted(BOX), completion)[0][1] in ((1.2, 0.2) if kept else (1.0, 0.0))


@pytest.mark.parametrize(
    ("completion", "kept"),
    [
        ("<think>a</think><answer>7</answer>", True),
        (" <think>a < b\n</think>\n<answer></answer>\n", True),
        ("<think>a</think>so<answer>7</answer>", False),
        ("x<think>a</think><answer>7</answer>", False),
        ("<think>a</think><answer>7</answer>x", False),
        ("<answer>7</answer><think>a</think>", False),
        ("<think>a<answer>7</answer></think>", False),
        ("<think>a</think><think>b</think><answer>7</answer>", False),
        ("<think>a</think><answer>7", False),
        ("</think>a<think><answer>7</answer>", False),
        ("", False),
    ],
)
def test_tags_in_their_order(completion: str, kept: bool) -> None:
    assert judged(weighted(TAGS), completion)[0][1] in ((1.1, 0.1) if kept else (1.0, 0.0))


def test_a_pattern_is_searched_where_it_can_be_killed() -> None:
    cfg = weighted({"type": "pattern", "pattern": "(a+)+$|Q", "weight": 0.5, "timeout_s": 0.5})
    assert judged(cfg, "Q 7", "q 7") == [("correct", 1.5), ("correct", 1.0)]
    with make_verifier(cfg) as verifier:
        hung, fine = verifier.judge_pairs([("a" * 60 + "b 7", "7"), ("Q 7", "7")])
    assert (hung.outcome, hung.reason, hung.reward) == (Outcome.UNKNOWN, "format rule 1: no decision", None)
    assert fine.reward == 1.5
    assert everything() == []


def test_unknown_answers_are_paid_nothing_for_their_form() -> None:
    with make_verifier(weighted(BOX)) as verifier:
        [verdict] = verifier.judge_pairs([(r"\boxed{7}", "no number")])
    assert (verdict.outcome, verdict.reward) == (Outcome.UNKNOWN, None)


def test_hostile_completions_cost_little() -> None:
    with make_verifier(weighted(BOX, TAGS)) as verifier:
        verdicts = verifier.judge_pairs([(text, "123456789") for text in (*HOSTILE, "<think>" * 100_000)])
    assert {v.outcome for v in verdicts} == {Outcome.WRONG}


def test_form_never_makes_up_for_a_wrong_answer() -> None:
    with pytest.raises(ValidationError, match="would be paid like a right one"):
        weighted(BOX, {**TAGS, "weight": 0.8})
    for bad in ({"format": []}, {"format": [{"type": "tags", "tags": ["a b"], "weight": 0.1}]}, {"format": [
        {"type": "pattern", "pattern": "(", "weight": 0.1}]}, {"format": [{"type": "box"}]}):  # fmt: skip
        with pytest.raises(ValidationError):
            TypeAdapter(RewardConfig).validate_python({"type": "weighted", "answer": {"type": "exact"}, **bad})


def test_the_answers_verifier_vouches_for_gold() -> None:
    with make_verifier(weighted(BOX)) as verifier, make_verifier(NumericConfig()) as alone:
        assert verifier.check_gold("7") is None
        assert verifier.check_gold("seven") == alone.check_gold("seven") != None  # noqa: E711


# What training makes of it.

C, W, U = Outcome.CORRECT, Outcome.WRONG, Outcome.UNKNOWN


def group(*verdicts: tuple[Outcome, float | None]) -> Group:
    request = Request("r", Prompt("p", "p", "1"), len(verdicts), 0)
    rollouts = [Rollout("r", i, (1,), (3, 3), (-0.5, -0.5), "x", FinishReason.STOP) for i in range(len(verdicts))]
    return Group(request, rollouts, [Verdict(outcome, reward=reward) for outcome, reward in verdicts])


def test_counts_come_from_answers_and_advantages_from_rewards() -> None:
    found = group((C, 1.2), (C, 1.0), (W, 0.2), (W, 0.0), (U, None))
    assert (found.successes, found.failures, found.unknown) == (2, 2, 1)
    samples = batch_samples([found], "dr-grpo", "prompt")
    assert [s.advantage for s in samples] == pytest.approx([0.6, 0.4, -0.4, -0.6])


def test_form_alone_teaches_where_answers_agree() -> None:
    found = group((W, 0.2), (W, 0.0))
    assert not found.informative
    assert [s.advantage for s in batch_samples([found], "dr-grpo", "prompt")] == pytest.approx([0.1, -0.1])


def test_what_is_solved_is_held_and_its_form_still_counts() -> None:
    even, uneven = group((C, 1.2), (C, 1.2)), group((C, 1.2), (C, 1.0))
    assert [s.advantage for s in batch_samples([even], "dr-grpo", "prompt", solved=0.5)] == [0.5]
    held = batch_samples([uneven], "dr-grpo", "prompt", solved=0.5)
    assert [s.advantage for s in held] == pytest.approx([0.6, 0.4])
    assert np.sum([s.weight for s in held]) == pytest.approx(1.0)


def test_metrics_tell_reward_and_share_correct_apart() -> None:
    told = [group((C, 1.2), (W, 0.2), (W, 0.0), (U, None))]
    figures = step_metrics(Progress(), Batch(told, "complete", {}), told, {})
    assert (figures["reward_mean"], figures["correct_share"]) == (pytest.approx(1.4 / 3), pytest.approx(1 / 3))
    plain = [group((C, None), (W, None))]
    figures = step_metrics(Progress(), Batch(plain, "complete", {}), plain, {})
    assert figures["reward_mean"] == 0.5
    assert "correct_share" not in figures
