"""Reinforce-Ada (arXiv 2510.04996): a prompt is rolled out in rounds until it has what its group needs.

Uniform draws. Its exit `balance`: half a group of right and half a group of wrong rollouts; `positive`: one right
rollout. What was rolled out is then sampled down to a group, half right and half wrong where there are as many; the
rest is paid for and not trained on. Deviations: the baseline is the mean of the sampled group, not of all rollouts of
the prompt; a round that the step's budget cannot feed ends the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from cures_core.config.curriculum import StrategyConfig
from cures_core.curriculum import Strategy, StrategyOptions
from cures_core.curriculum.posterior import Ints
from cures_core.terms import Group, Outcome


class ReinforceAdaOptions(StrategyOptions):
    """How long a prompt is rolled out, and how many of its rollouts are trained on."""

    exit: Literal["balance", "positive"] = "balance"
    """What resolves a prompt."""
    per_round: int = Field(default=4, ge=1)
    """Rollouts of an unresolved prompt in a round."""
    rounds: int = Field(default=8, ge=1)
    """Rounds of a step at most."""
    group_size: int = Field(default=8, ge=2)
    """Rollouts of a prompt that are trained on."""


class ReinforceAda(Strategy):
    """`prompts_per_step` prompts; the step's budget is the most that they may take together."""

    options_type = ReinforceAdaOptions
    options: ReinforceAdaOptions

    @classmethod
    def check(cls, cfg: StrategyConfig, options: StrategyOptions) -> None:
        assert isinstance(options, ReinforceAdaOptions)
        cfg.check_budget(options.per_round, options.per_round * options.rounds)

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        if round_ == 0:
            rows = self.rng.permutation(len(self.prompts))[: self.cfg.prompts_per_step]
        else:
            left = [g.request.prompt.id for g in self.told_so_far if not self._resolved(g)]
            rows = self.rng.permutation(self.posterior.rows(left))
        rows = np.sort(rows[: budget // self.options.per_round])
        return rows, np.full(len(rows), self.options.per_round, dtype=np.int64)

    def finished(self, told: Sequence[Group]) -> str:
        most = self.options.per_round * self.options.rounds
        return "complete" if all(self._resolved(g) or g.request.n >= most for g in told) else ""

    def select(self, told: Sequence[Group]) -> Sequence[Group]:
        return [self._sampled_down(group) for group in told]

    def _resolved(self, group: Group) -> bool:
        if self.options.exit == "positive":
            return group.successes > 0
        return min(group.successes, group.failures) >= self.options.group_size // 2

    def _sampled_down(self, group: Group) -> Group:
        """Rollouts are exchangeable within right and wrong ones: the first of each are as good as any."""
        size, outcomes = self.options.group_size, [v.outcome for v in group.verdicts]
        right, wrong = ([i for i, o in enumerate(outcomes) if o is kind] for kind in (Outcome.CORRECT, Outcome.WRONG))
        num_right = min(len(right), max(size // 2, size - len(wrong)))
        kept = sorted([*right[:num_right], *wrong[: size - num_right]])
        return Group(group.request, [group.rollouts[i] for i in kept], [group.verdicts[i] for i in kept])
