"""Group advantages for groups of unequal size, and the explicit weight of every rollout in the loss. numpy only.

A rollout with an unknown or masked verdict has neither advantage nor weight, and a group of such rollouts alone is no
group. `sum of weights = 1` over the other rollouts of the batch, groups without signal included: their gradient is
zero, and leaving them in the denominator keeps the meaning of the learning rate when the share of informative groups
changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cures_core.errors import ConfigError
from cures_core.terms import Group, Outcome, Rollout

Floats = npt.NDArray[np.float64]
AdvantageName = Literal["grpo", "dr-grpo", "loo", "reinforce++", "reinforce++-baseline", "posterior"]
WeightName = Literal["prompt", "rollout", "token"]
_EPS = 1e-6


@dataclass(frozen=True)
class Sample:
    """One rollout in the loss: `weight` multiplies the (length-normalised) sum over its tokens."""

    rollout: Rollout
    advantage: float
    weight: float


def group_advantages(rewards: Floats, name: AdvantageName) -> Floats:
    """Advantages (n,) of one group's known rewards (n,). Zero where all rewards agree.

    `grpo`: (r - mean) / (std + eps), population std (DeepSeekMath, eq. 3). `dr-grpo`: r - mean (Liu et al. 2025).
    `loo`: r_i - mean of the others = n/(n-1) (r_i - mean), unbiased for every n >= 2 (Kool et al. 2019); n = 1 gives 0.
    """
    if len(rewards) == 0 or rewards.min() == rewards.max():
        return np.zeros_like(rewards)
    centred = np.asarray(rewards - rewards.mean(), dtype=np.float64)
    if name == "grpo":
        return np.asarray(centred / (rewards.std() + _EPS))
    if name == "loo":
        return np.asarray(centred * (len(rewards) / (len(rewards) - 1)))
    return centred


def batch_samples(
    groups: Sequence[Group],
    advantage: AdvantageName,
    weight: WeightName,
    solved: float = 0.0,
    *,
    keep_all: bool = False,
) -> list[Sample]:
    """Samples with non-zero advantage (all known ones with `keep_all`), in the order of the groups. None of a batch
    without any known verdict. A rollout of no tokens counts in baselines and weights and is no sample itself.

    `solved` is the advantage of all-right groups. Where all of its rollouts are paid the same, one of them stands for
    such a group, with its own weight times their number: rollouts are exchangeable, so nothing is biased, and a batch
    full of solved prompts costs a row for each, not a group. (The sum of their weights, where those go by length, would
    push a short one up for the tokens of the long ones.) Where format makes a difference, `solved` is added to that.

    `reinforce++` normalises the reward over all known rollouts of the batch (Hu 2025): no group baseline.
    `reinforce++-baseline` takes the group's mean off first, then divides by the spread over the batch.
    `posterior` takes off the pass rate that was expected of the prompt when it was asked for, before any of its
    rollouts: a baseline that needs no group, so that a single rollout teaches, right or wrong (Xu and Ding 2025, arXiv
    2509.13232). Raises `ConfigError` for a request that expects none.
    """
    rewards, rollouts, rights = [], [], []
    for group in groups:
        known = [(r, v) for r, v in zip(group.rollouts, group.verdicts, strict=True) if v.in_loss]
        rollouts.append([r for r, _ in known])
        rewards.append(np.array([v.paid for _, v in known]))
        rights.append([v.outcome is Outcome.CORRECT for _, v in known])
    if advantage == "reinforce++":
        advantages = _normalised(rewards)
    elif advantage == "reinforce++-baseline":
        advantages = _normalised([group_advantages(r, "dr-grpo") for r in rewards])
    elif advantage == "posterior":
        advantages = [r - _expected(group) for r, group in zip(rewards, groups, strict=True)]
    else:
        advantages = [group_advantages(r, advantage) for r in rewards]
    weights = _weights(rollouts, weight)
    samples = []
    for group_rollouts, group_rewards, right, group_a, group_w in zip(
        rollouts, rewards, rights, advantages, weights, strict=True
    ):
        if solved and right and all(right):
            if group_rewards.min() == group_rewards.max():
                nonempty = [(r, w) for r, w in zip(group_rollouts, group_w, strict=True) if r.token_ids]
                samples += [Sample(r, solved, len(nonempty) * w) for r, w in nonempty[:1]]
                continue
            group_a = group_a + solved
        rows = zip(group_rollouts, group_a, group_w, strict=True)
        samples += [Sample(r, float(a), w) for r, a, w in rows if r.token_ids and (keep_all or a != 0.0)]
    return samples


def taught(groups: Sequence[Group], samples: Sequence[Sample]) -> int:
    """How many of the groups move the policy: those with a rollout whose advantage is not zero."""
    moving = {sample.rollout.request_id for sample in samples if sample.advantage}
    return sum(any(rollout.request_id in moving for rollout in group.rollouts) for group in groups)


def _expected(group: Group) -> float:
    if group.request.expected is None:
        raise ConfigError(
            f"request {group.request.id} expects no pass rate: training.advantage = posterior takes that for its "
            "baseline, and needs a curriculum that keeps a posterior (cures_core.curriculum.Strategy)"
        )
    return group.request.expected


def _normalised(values: Sequence[Floats]) -> list[Floats]:
    """Mean 0 and deviation 1 over all values of the batch; zero where they all agree."""
    every = np.concatenate(values) if values else np.zeros(0)
    if len(every) == 0 or every.min() == every.max():  # the deviation of equal values need not be 0 in floats
        return [np.zeros_like(v) for v in values]
    return [(v - every.mean()) / (every.std() + _EPS) for v in values]


def _weights(rollouts: Sequence[Sequence[Rollout]], name: WeightName) -> list[list[float]]:
    """`prompt`: 1 / (groups * n_i). `rollout`: 1 / rollouts. `token`: tokens of the rollout / tokens of the batch.

    Of known rollouts; nothing is divided for a group without any.
    """
    occupied = sum(1 for group in rollouts if group)
    total = sum(len(group) for group in rollouts)
    tokens = sum(len(r.token_ids) for group in rollouts for r in group)
    if name == "prompt":
        return [[1.0 / (occupied * len(group)) for _ in group] for group in rollouts]
    if name == "rollout":
        return [[1.0 / total for _ in group] for group in rollouts]
    return [[len(r.token_ids) / max(1, tokens) for r in group] for group in rollouts]
