"""Truncated completions are judged, masked or wrong, and long ones paid less, as it is configured."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cures_core.config.run import RunConfig
from cures_core.config.training import OverlongPenalty
from cures_core.rewards.length import AS_JUDGED, TRUNCATED, LengthRule
from cures_core.terms import FinishReason, Group, Outcome, Prompt, Request, Rollout, Verdict
from cures_core.training.advantages import batch_samples

C, W, U = Outcome.CORRECT, Outcome.WRONG, Outcome.UNKNOWN
MASKED, WRONG = LengthRule("masked"), LengthRule("wrong")


def rollout(length: int = 4, cut: bool = False) -> Rollout:
    reason = FinishReason.LENGTH if cut else FinishReason.STOP
    return Rollout("r", 0, (1,), (2,) * length, (-1.0,) * length, "", reason)


def group(rule: LengthRule, *judged: tuple[Outcome, bool]) -> Group:
    rollouts = [rollout(cut=cut) for _, cut in judged]
    verdicts = [rule.applied(r, Verdict(o)) for r, (o, _) in zip(rollouts, judged, strict=True)]
    return Group(Request("q", Prompt("p", "q", "a"), len(judged), 0), rollouts, verdicts)


def test_nothing_is_done_unless_it_is_configured() -> None:
    for verdict in (Verdict(C), Verdict(W, reward=0.2), Verdict(U)):
        assert AS_JUDGED.applied(rollout(cut=True), verdict) is verdict
    assert AS_JUDGED.figures([group(AS_JUDGED, (C, True))]) == {}


@pytest.mark.parametrize("rule", [AS_JUDGED, MASKED, WRONG, LengthRule("wrong", OverlongPenalty(buffer_tokens=2), 8)])
def test_what_is_unknown_stays_so_and_what_ended_by_itself_is_as_judged(rule: LengthRule) -> None:
    assert rule.applied(rollout(cut=True), Verdict(U, reason="timeout")) == Verdict(U, reason="timeout")
    assert rule.applied(rollout(), Verdict(C)) == Verdict(C)


def test_wrong_is_said_with_its_reason_and_pays_nothing() -> None:
    assert WRONG.applied(rollout(cut=True), Verdict(C, "7", "last")) == Verdict(W, "7", "last", TRUNCATED)
    assert WRONG.applied(rollout(cut=True), Verdict(C, reward=1.2)).reward == 0.0


def test_what_is_masked_is_in_the_counts_and_not_in_the_loss() -> None:
    masked = group(MASKED, (C, False), (W, False), (W, True), (C, True))
    assert (masked.successes, masked.failures, masked.unknown) == (2, 2, 0)  # what the posterior hears
    without = group(MASKED, (C, False), (W, False))
    for name in ("grpo", "reinforce++"):
        for weight in ("prompt", "rollout", "token"):
            found = batch_samples([masked], name, weight)  # type: ignore[arg-type]
            expected = batch_samples([without], name, weight)  # type: ignore[arg-type]
            assert [(s.advantage, s.weight) for s in found] == [(s.advantage, s.weight) for s in expected]
    only_cut_ones_fail = group(MASKED, (C, False), (W, True))
    assert not only_cut_ones_fail.informative
    assert batch_samples([only_cut_ones_fail], "grpo", "prompt") == []
    assert batch_samples([group(MASKED, (C, True), (W, True))], "loo", "token", keep_all=True) == []


def test_the_penalty_is_the_paper_s_slope() -> None:
    """DAPO, eq. 13, with a limit of 20 and a buffer of 8 tokens: 0 up to 12, then linear, all of it at the limit."""
    rule = LengthRule(overlong=OverlongPenalty(buffer_tokens=8), max_tokens=20)
    assert [rule.penalty(rollout(n)) for n in (1, 12, 13, 16, 20)] == [0, 0, 0.125, 0.5, 1.0]
    assert rule.penalty(rollout(3, cut=True)) == 1.0  # the context was full
    paid = rule.applied(rollout(16), Verdict(C))
    assert (paid.outcome, paid.reward) == (C, 0.5)
    assert rule.applied(rollout(16), Verdict(W, reward=0.1)).reward == pytest.approx(-0.4)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.1, 2.0), st.booleans())
def test_longer_is_never_paid_more(limit: int, buffer: int, penalty: float, right: bool) -> None:
    rule = LengthRule(overlong=OverlongPenalty(buffer_tokens=min(buffer, limit), penalty=penalty), max_tokens=limit)
    paid = [rule.applied(rollout(n), Verdict(C if right else W)).paid for n in range(limit + 1)]
    assert all(a >= b for a, b in pairwise(paid))
    assert paid[0] - paid[-1] == pytest.approx(penalty)


def test_what_the_rule_did_is_told() -> None:
    judged = [(C, False), (C, True), (W, True), (U, True)]
    assert MASKED.figures([group(MASKED, *judged)]) == {"masked_share": 0.5}
    assert WRONG.figures([group(WRONG, *judged)]) == {"ruled_wrong_share": 0.5}
    assert MASKED.figures([group(MASKED, (C, False))]) == {"masked_share": 0.0}
    rule = LengthRule(overlong=OverlongPenalty(buffer_tokens=8), max_tokens=20)
    assert rule.figures([group(rule, *judged)]) == {
        "overlong_share": pytest.approx(2 / 3),
        "overlong_penalty_mean": pytest.approx(2 / 3),
    }
    assert rule.figures([]) == {}


def profile(**training: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "data": {"path": "p"},
            "rollout": {"max_new_tokens": 8},
            "training": {"learning_rate": 1e-3, **training},
        }
    )


def test_a_run_says_its_rule() -> None:
    assert LengthRule.of(profile()) == LengthRule(max_tokens=8)
    penalty = {"buffer_tokens": 3, "penalty": 0.5}
    rule = LengthRule.of(profile(truncated="masked", overlong=penalty))
    assert rule == LengthRule("masked", OverlongPenalty(**penalty), 8)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=r"buffer_tokens 9 is above rollout.max_new_tokens 8"):
        profile(overlong={"buffer_tokens": 9})
