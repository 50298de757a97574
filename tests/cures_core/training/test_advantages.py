"""Advantages and loss weights against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cures_core.config.training import TorchTrainerConfig
from cures_core.errors import ConfigError
from cures_core.terms import FinishReason, Group, Outcome, Prompt, Request, Rollout, Verdict
from cures_core.training.advantages import batch_samples, group_advantages, taught

C, W, U = Outcome.CORRECT, Outcome.WRONG, Outcome.UNKNOWN


def group(*outcomes: Outcome, lengths: tuple[int, ...] | None = None, name: str = "p") -> Group:
    lengths = lengths or (2,) * len(outcomes)
    request = Request(f"r-{name}", Prompt(name, name, "1"), len(outcomes), 0)
    rollouts = [
        Rollout(request.id, i, (1,), (3,) * n, (-0.5,) * n, "x", FinishReason.STOP) for i, n in enumerate(lengths)
    ]
    return Group(request, rollouts, [Verdict(o) for o in outcomes])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("grpo", [np.sqrt(3), -1 / np.sqrt(3), -1 / np.sqrt(3), -1 / np.sqrt(3)]),
        ("dr-grpo", [0.75, -0.25, -0.25, -0.25]),
        ("loo", [1.0, -1 / 3, -1 / 3, -1 / 3]),
    ],
)
def test_hand_computed(name: Any, expected: list[float]) -> None:
    assert group_advantages(np.array([1.0, 0, 0, 0]), name) == pytest.approx(expected, abs=1e-4)


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=12), st.sampled_from(["grpo", "dr-grpo", "loo"]))
def test_advantages_sum_to_zero_and_vanish_without_signal(rewards: list[float], name: Any) -> None:
    a = group_advantages(np.array(rewards), name)
    assert a.sum() == pytest.approx(0.0, abs=1e-9)
    if len(set(rewards)) == 1:
        assert not a.any()


@pytest.mark.parametrize("name", ["grpo", "dr-grpo", "loo"])
def test_what_is_solved_can_have_an_advantage_and_nothing_else_changes(name: Any) -> None:
    groups = [group(C, U, C, name="a"), group(W, W, name="b"), group(C, W, name="c")]
    without, held = batch_samples(groups, name, "prompt"), batch_samples(groups, name, "prompt", solved=0.5)
    assert [(s.advantage, s.weight) for s in held[1:]] == [(s.advantage, s.weight) for s in without]
    assert [(s.advantage, s.weight) for s in held[:1]] == [(0.5, 1 / 3)]  # one rollout stands for the group


@pytest.mark.parametrize(("weight", "expected"), [("token", [10, 90]), ("rollout", [50, 50]), ("prompt", [50, 50])])
def test_the_one_that_stands_for_a_solved_group_is_unbiased(weight: Any, expected: list[float]) -> None:
    """Over both orders each of the two weighs what it would if both were trained on."""
    of_length: dict[int, float] = {}
    for lengths in ((10, 90), (90, 10)):
        (held,) = batch_samples([group(C, C, lengths=lengths)], "grpo", weight, solved=1.0)
        of_length[len(held.rollout.token_ids)] = held.weight / 2
    assert [100 * of_length[10], 100 * of_length[90]] == pytest.approx(expected)


@pytest.mark.parametrize(("solved", "number"), [(0.0, 1), (0.5, 2)])
def test_a_group_taught_where_one_of_its_rollouts_has_an_advantage(solved: float, number: int) -> None:
    groups = [group(C, U, C, name="a"), group(W, W, name="b"), group(C, W, name="c"), group(U, name="d")]
    assert taught(groups, batch_samples(groups, "grpo", "prompt", solved)) == number
    with_kl = batch_samples(groups, "grpo", "prompt", solved, keep_all=True)  # those without an advantage too
    assert taught(groups, with_kl) == number


@pytest.mark.parametrize(("name", "of"), [("reinforce++", "the batch"), ("posterior", "the posterior")])
def test_a_solved_group_needs_a_baseline_of_its_own(name: Any, of: str) -> None:
    with pytest.raises(ValidationError, match=f"that of {of}"):
        TorchTrainerConfig(learning_rate=1e-3, advantage=name, solved_advantage=1.0)


def test_reinforce_pp_normalises_over_the_batch() -> None:
    samples = batch_samples([group(C, C, name="a"), group(W, W, name="b")], "reinforce++", "rollout")
    assert [s.advantage for s in samples] == pytest.approx([1, 1, -1, -1], abs=1e-4)


def expecting(rate: float, *outcomes: Outcome, name: str = "p") -> Group:
    asked = group(*outcomes, name=name)
    return replace(asked, request=replace(asked.request, expected=rate))


def test_against_the_posterior_every_single_rollout_teaches() -> None:
    groups = [expecting(0.9, C, name="a"), expecting(0.9, W, name="b"), expecting(0.2, C, U, W, name="c")]
    samples = batch_samples(groups, "posterior", "rollout")
    assert [s.advantage for s in samples] == pytest.approx([0.1, -0.9, 0.8, -0.2])
    assert [s.weight for s in samples] == [0.25] * 4
    assert taught(groups, samples) == 3


@given(st.floats(0, 1), st.floats(0.01, 0.99), st.integers(1, 3))
def test_whatever_is_expected_the_mean_update_is_the_gradient(expected: float, p: float, n: int) -> None:
    """Of a policy that is right with p = sigmoid(x): d p / d x = p (1 - p), score 1 - p when right, -p when wrong."""
    update = 0.0
    for outcomes in product([C, W], repeat=n):
        chance = float(np.prod([p if o is C else 1 - p for o in outcomes]))
        samples = batch_samples([expecting(expected, *outcomes)], "posterior", "rollout")
        scores = [1 - p if outcomes[s.rollout.index] is C else -p for s in samples]
        update += chance * sum(s.weight * s.advantage * score for s, score in zip(samples, scores, strict=True))
    assert update == pytest.approx(p * (1 - p))


def test_a_request_that_expects_nothing_has_no_such_baseline() -> None:
    with pytest.raises(ConfigError, match="r-p expects no pass rate"):
        batch_samples([group(C, W)], "posterior", "rollout")


def test_the_guard_against_division_by_nothing_is_part_of_the_value() -> None:
    """(1 - 1/4) / (sqrt(3)/4 + 1e-6), to more digits than the guard."""
    expected = 0.75 / (np.sqrt(3) / 4 + 1e-6)
    assert group_advantages(np.array([1.0, 0, 0, 0]), "grpo")[0] == pytest.approx(expected, rel=1e-12)
    samples = batch_samples([group(C, W, W, W)], "reinforce++", "rollout")
    assert samples[0].advantage == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["grpo", "dr-grpo", "loo"])
def test_no_rewards_have_no_advantages_and_low_precision_is_not_kept(name: Any) -> None:
    assert group_advantages(np.zeros(0), name).shape == (0,)
    assert group_advantages(np.array([0, 1], dtype=np.float32), name).dtype == np.float64


def test_reinforce_pp_with_a_baseline_centres_by_group_and_scales_by_batch() -> None:
    """Centred: 3/4, -1/4 (3 times), 1/2, -1/2; their mean is 0, their mean square (3/4 + 1/2) / 6."""
    samples = batch_samples([group(C, W, W, W, name="a"), group(C, W, name="b")], "reinforce++-baseline", "rollout")
    spread = np.sqrt((0.75 + 0.5) / 6)
    assert [s.advantage for s in samples] == pytest.approx(np.array([3, -1, -1, -1, 2, -2]) / 4 / spread, abs=1e-4)


@pytest.mark.parametrize("name", ["reinforce++", "reinforce++-baseline"])
def test_a_batch_that_agrees_has_no_advantage_to_normalise(name: Any) -> None:
    assert batch_samples([], name, "rollout") == batch_samples([group(U), group(U, U)], name, "rollout") == []
    held = batch_samples([group(C, C), group(C)], name, "rollout", keep_all=True)
    assert [s.advantage for s in held] == [0.0] * 3


def test_samples_stand_for_their_rollouts_in_the_order_of_the_groups() -> None:
    groups = [group(C, W, name="a"), group(C, C, name="b"), group(W, C, name="c")]
    samples = batch_samples(groups, "grpo", "prompt", solved=1.0)
    expected = [*groups[0].rollouts, groups[1].rollouts[0], *groups[2].rollouts]
    assert [s.rollout for s in samples] == expected
    kept = batch_samples(groups, "grpo", "prompt", keep_all=True)
    assert [s.rollout for s in kept] == [r for g in groups for r in g.rollouts]


def test_where_format_pays_among_the_right_what_is_solved_is_held_beside_it() -> None:
    solved = group(C, C)
    paid = Group(solved.request, solved.rollouts, [Verdict(C, reward=1.0), Verdict(C, reward=0.5)])
    samples = batch_samples([paid], "dr-grpo", "prompt", solved=1.0)
    assert [s.advantage for s in samples] == [1.25, 0.75]


def test_a_rollout_without_a_token_counts_and_is_no_sample() -> None:
    mixed = batch_samples([group(C, W, W, lengths=(2, 0, 2))], "dr-grpo", "rollout")
    assert [(s.advantage, s.weight) for s in mixed] == [(pytest.approx(2 / 3), 1 / 3), (pytest.approx(-1 / 3), 1 / 3)]
    (held,) = batch_samples([group(C, C, lengths=(0, 2))], "grpo", "prompt", solved=1.0)
    assert (len(held.rollout.token_ids), held.weight) == (2, 0.5)  # the other half is of the empty one, as above
    assert batch_samples([group(C, W, lengths=(0, 0))], "grpo", "token", keep_all=True) == []
    (one,) = batch_samples([group(C, U, lengths=(1, 5))], "grpo", "token", keep_all=True)
    assert one.weight == 1.0


def test_a_group_with_a_verdict_too_few_is_refused() -> None:
    whole = group(C, W)
    with pytest.raises(ValueError, match="zip"):
        batch_samples([Group(whole.request, whole.rollouts, whole.verdicts[:1])], "grpo", "prompt")


def test_unknown_verdicts_enter_neither_advantage_nor_weight() -> None:
    with_unknown = batch_samples([group(C, U, W), group(C, W, name="b")], "grpo", "prompt")
    without = batch_samples([group(C, W), group(C, W, name="b")], "grpo", "prompt")
    assert [(s.advantage, s.weight) for s in with_unknown] == [(s.advantage, s.weight) for s in without]


@pytest.mark.parametrize(
    ("weight", "expected"),
    [("prompt", [1 / 4, 1 / 4, 1 / 8]), ("rollout", [1 / 6, 1 / 6, 1 / 6]), ("token", [1 / 12, 3 / 12, 2 / 12])],
)
def test_loss_weights_of_unequal_groups(weight: Any, expected: list[float]) -> None:
    groups = [group(C, W, lengths=(1, 3)), group(C, W, W, W, name="b")]
    samples = batch_samples(groups, "grpo", weight)
    assert [s.weight for s in samples[:3]] == pytest.approx(expected)
    assert sum(s.weight for s in samples) == pytest.approx(1.0)


def test_groups_without_signal_stay_in_the_denominator() -> None:
    samples = batch_samples([group(C, W), group(W, W, name="b")], "grpo", "prompt")
    assert [s.weight for s in samples] == pytest.approx([1 / 4, 1 / 4])


@pytest.mark.parametrize(("p", "stretch"), [(0.01, 2.6), (0.5, 1.9), (0.99, 1.4)])
def test_screened_groups_point_along_the_gradient(p: float, stretch: float) -> None:
    """docs/curriculum.md: one right rollout, or a failure and four more; scores of a Bernoulli policy in its logit."""

    def update(*outcomes: Outcome) -> float:
        samples = batch_samples([group(*outcomes)], "grpo", "prompt", solved=1.0)
        scores = [(1 - p) if outcomes[s.rollout.index] is C else -p for s in samples]
        return sum(s.weight * s.advantage * score for s, score in zip(samples, scores, strict=True))

    continued = sum(
        p ** more.count(C) * (1 - p) ** more.count(W) * update(W, *more) for more in product((C, W), repeat=4)
    )
    gradient = p * (1 - p)
    assert (p * update(C) + (1 - p) * continued) / gradient == pytest.approx(stretch, abs=0.05)
