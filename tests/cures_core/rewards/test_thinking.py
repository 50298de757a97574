"""What a policy only thinks is no answer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.config.rewards import BoxRule, ExactConfig, NumericConfig, TagsRule, WeightedConfig
from cures_core.config.rollout import THINKING
from cures_core.rewards import make_verifier
from cures_core.rewards.thinking import AfterThinking
from cures_core.rewards.verifier import Item, Verifier
from cures_core.terms import Outcome, Verdict
from cures_core.testing.verifier import VerifierExam
from cures_core.thinking import answer_of

CASES = [
    ("<think>It is 4.</think>The answer is 5.", True),
    ("<think>It is 5.</think>The answer is 4.", False),
    ("<think>The answer is 5.</think>", False),
    ("<think>The answer is 5.", False),
    ("The answer is 5. <think>or", False),
    ("It may be 4.</think>The answer is 5.", True),  # the prompt has opened it
    ("The answer is 5.</think>I give up.", False),
    ("<think>4</think>Hm. <think>5</think>The answer is 5.", True),
    ("<think>4</think>The answer is 4.<think>5</think>", False),
    ("The answer is 5.", True),
    ("", False),
]


@pytest.mark.parametrize(("completion", "is_right"), CASES)
def test_the_answer_is_what_follows_the_thinking(completion: str, is_right: bool) -> None:
    with make_verifier(NumericConfig(), THINKING) as verifier:
        [verdict] = verifier.judge_pairs([(completion, "5")])
    assert verdict.outcome is (Outcome.CORRECT if is_right else Outcome.WRONG)


def test_thinking_that_is_never_closed_says_so() -> None:
    with make_verifier(ExactConfig(), THINKING) as verifier:
        open_, closed, none = verifier.judge_pairs([("<think>5", "5"), ("<think></think> ", "5"), ("6", "5")])
    assert (open_.reason, closed.reason, none.reason) == ("nothing follows the thinking",) * 2 + ("",)


def test_a_gold_answer_that_cannot_be_read_stays_unknown() -> None:
    with make_verifier(NumericConfig(), THINKING) as verifier:
        assert verifier.judge_pairs([("<think>5", "no number")])[0].outcome is Outcome.UNKNOWN


class Costly(Verifier):
    """Of a price, with another one for a source."""

    def __init__(self, price: float = 1.0) -> None:
        self.price = price

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return [Verdict(Outcome.CORRECT)] * len(items)

    def check_gold(self, answer: str) -> str | None:
        return None

    def figures(self) -> dict[str, float]:
        return {"price": self.price}

    def of(self, source: str, name: str) -> Verifier:
        return Costly(self.price + len(source))


def test_what_verdicts_cost_and_who_is_responsible_is_asked_of_the_verifier_behind() -> None:
    verifier = AfterThinking(Costly(), ("<think>", "</think>"))
    assert verifier.figures() == {"price": 1.0}
    assert verifier.of("abc", "").figures() == {"price": 4.0}
    [verdict] = verifier.of("abc", "").judge_pairs([("<think>", "5")])
    assert verdict.outcome is Outcome.WRONG


def test_rules_of_format_see_the_thinking() -> None:
    rules = (TagsRule(weight=0.1, tags=("think", "answer")), BoxRule(weight=0.1))
    cfg = WeightedConfig(answer=NumericConfig(), format=rules)
    completion = r"<think>\boxed{4}</think><answer>5</answer>"
    with make_verifier(cfg, THINKING) as verifier:
        [verdict] = verifier.judge_pairs([(completion, "5")])
    assert (verdict.outcome, verdict.reward) == (Outcome.CORRECT, pytest.approx(1.2))


@given(st.text(st.sampled_from("<>/thinka 5"), max_size=30))
def test_without_tags_nothing_changes(text: str) -> None:
    assert answer_of(text, ()) == text
    if not any(tag in text for tag in THINKING):
        assert answer_of(text, THINKING) == text
    assert text.endswith(answer_of(text, THINKING))
    assert not any(tag in answer_of(text, THINKING) for tag in THINKING)


class TestAfterThinking(VerifierExam):
    right = (("<think>12</think> 1,234", "1234"), ("hm</think>The answer is 3/4 cup.", "0.75"))
    wrong = (("<think>1234</think> 12", "1234"), ("<think>7", "7"), (r"7 \boxed{", "7"))

    def make(self) -> Verifier:
        return make_verifier(NumericConfig(), THINKING)
