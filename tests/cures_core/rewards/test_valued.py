"""Rewards between 0 and 1: the threshold is for the posterior, the value for training."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.config.rewards import BoxRule, CustomConfig, WeightedConfig
from cures_core.rewards import make_verifier
from cures_core.rewards.valued import verdict_of
from cures_core.terms import FinishReason, Group, Outcome, Prompt, Request, Rollout, Verdict
from cures_core.training.advantages import batch_samples, group_advantages

C, W, U = Outcome.CORRECT, Outcome.WRONG, Outcome.UNKNOWN
NAMES: list[Any] = ["grpo", "dr-grpo", "loo", "reinforce++", "reinforce++-baseline"]


def share_of_gold(completion: str, gold: str) -> float:
    """A grader of these tests: how much of the gold answer the completion begins with."""
    return sum(a == b for a, b in zip(completion, gold, strict=False)) / len(gold)


def group(verdicts: list[Verdict], name: str = "p") -> Group:
    request = Request(name, Prompt(name, "q", "a"), len(verdicts), 0)
    rollouts = [Rollout(name, i, (1,), (2, 3), (-1.0, -1.0), "", FinishReason.STOP) for i in range(len(verdicts))]
    return Group(request, rollouts, verdicts)


@given(st.floats(0, 1), st.floats(0, 1, exclude_min=True))
def test_the_outcome_is_the_threshold_s_and_the_reward_the_value(value: float, threshold: float) -> None:
    verdict = verdict_of(value, threshold, "custom")
    assert verdict.outcome is (C if value >= threshold else W)
    assert verdict.paid == value


@pytest.mark.parametrize(
    ("value", "outcome", "reward"),
    [
        (True, C, None),
        (False, W, None),
        (None, U, None),
        (1, C, 1.0),
        (0, W, 0.0),
        (np.float32(0.25), W, 0.25),
        (1.5, U, None),
        (-0.1, U, None),
        (float("nan"), U, None),
        (float("inf"), U, None),
        ("0.7", U, None),
        (0.5 + 0j, U, None),
    ],
)
def test_what_a_grader_may_return(value: object, outcome: Outcome, reward: float | None) -> None:
    verdict = verdict_of(value, 0.5, "custom")
    assert (verdict.outcome, verdict.reward) == (outcome, reward)
    assert bool(verdict.reason) is (outcome is U and value is not None)


def test_a_function_s_value_is_paid_and_its_threshold_counted() -> None:
    cfg = CustomConfig(function="tests.cures_core.rewards.test_valued:share_of_gold", threshold=0.75)
    with make_verifier(cfg) as verifier:
        verdicts = verifier.judge_pairs([("abcd", "abcd"), ("abcx", "abcd"), ("abxx", "abcd")])
    assert [(v.outcome, v.reward) for v in verdicts] == [(C, 1.0), (C, 0.75), (W, 0.5)]
    weighted = WeightedConfig(answer=cfg, answer_weight=2.0, format=(BoxRule(weight=0.5),))
    with make_verifier(weighted) as verifier:
        assert [v.reward for v in verifier.judge_pairs([("abxx", "abcd")])] == [1.0]


@pytest.mark.parametrize("name", NAMES)
@given(values=st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=8))
def test_advantages_are_of_the_values_and_finite(name: Any, values: list[float | None]) -> None:
    verdicts = [verdict_of(value, 0.5, "x") for value in values]
    samples = batch_samples([group(verdicts)], name, "prompt")
    known = [value for value in values if value is not None]
    assert np.isfinite([s.advantage for s in samples]).all()
    if len(set(known)) < 2:  # all unknown, one alone, or all equal: nothing to learn
        assert samples == []
    else:
        assert sum(s.advantage * s.weight for s in samples) == pytest.approx(0.0, abs=1e-9)
        paid = dict(zip([s.rollout.index for s in samples], [s.advantage for s in samples], strict=True))
        best, least = int(np.nanargmax(np.array(values, float))), int(np.nanargmin(np.array(values, float)))
        assert paid.get(best, 0.0) >= paid.get(least, 0.0)


@pytest.mark.parametrize("name", ["dr-grpo", "loo"])
def test_the_expected_gradient_is_that_of_the_mean_value(name: Any) -> None:
    """Exactly, over all groups of three rollouts of a policy with three completions: whatever the threshold, the loss
    follows the gradient of E[value] (`dr-grpo`, whose baseline holds the rollout itself, (n - 1) / n of it), and no
    pass rate of a posterior is in it."""
    logits, values, n = np.array([0.3, -0.2, 0.1]), np.array([0.0, 0.4, 1.0]), 3
    p = np.exp(logits) / np.exp(logits).sum()
    score = np.eye(3) - p  # gradient of log p of each completion
    wanted = (p * values) @ score
    found = np.zeros(3)
    for drawn in itertools.product(range(3), repeat=n):
        picked = list(drawn)
        found += np.prod(p[picked]) * group_advantages(values[picked], name) @ score[picked] / n
    assert found == pytest.approx(wanted * ((n - 1) / n if name == "dr-grpo" else 1.0), abs=1e-12)
