"""MaxRL (arXiv 2602.02710): the group's advantage over its mean reward instead of its deviation, (r - m) / m.

Uniform draws, equal groups. The published loss, through the public seam: a right rollout of a group with pass rate m is
paid 1 / m, and the trainer's advantage `dr-grpo` takes the mean off, which is 1. A group without a right rollout has no
gradient, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cures_core.curriculum import Strategy, allocate_equally
from cures_core.curriculum.posterior import Ints
from cures_core.terms import Group, Outcome


class MaxRl(Strategy):
    """One round a step. For `training.advantage = "dr-grpo"`."""

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        num = min(self.cfg.prompts_per_step, len(self.prompts), budget // 2)
        rows = self.rng.permutation(len(self.prompts))[:num]
        rows.sort()
        return rows, allocate_equally(num, budget, self.rng)

    def select(self, told: Sequence[Group]) -> Sequence[Group]:
        return [_paid(group) for group in told]


def _paid(group: Group) -> Group:
    """The group with its right rollouts paid by how rare they are in it."""
    known = group.successes + group.failures
    if not group.successes:
        return group
    reward = known / group.successes
    verdicts = [replace(v, reward=reward) if v.outcome is Outcome.CORRECT else v for v in group.verdicts]
    return replace(group, verdicts=verdicts)
