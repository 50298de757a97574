"""Dynamic sampling (DAPO, arXiv 2503.14476): draw prompts until enough groups are informative, discard the others.

As there, every round draws a whole batch of prompts, and informative groups beyond the number wanted are discarded too.
Deviations: the number of draws is bounded by the step's budget, after which the step trains on what there is; discarded
rollouts are paid for and told to the posterior like any others. The paper's loss (clip-higher, token mean, overlong
shaping) is not a matter of the curriculum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cures_core.config.curriculum import DapoConfig
from cures_core.curriculum.posterior import Ints
from cures_core.curriculum.strategies.strategy import Strategy
from cures_core.terms import Group


class DapoCurriculum(Strategy):
    """As many rounds as the budget allows; no prompt twice in a step."""

    cfg: DapoConfig
    holds_quotas = True

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        done = self.posterior.rows([g.request.prompt.id for g in self.told_so_far])
        left = np.setdiff1d(np.arange(len(self.prompts)), done)
        num = min(self.cfg.prompts_per_step, len(left), budget // self.cfg.group_size)
        # In the order of the draw: `select` keeps the first ones, and order of id would favour the same prompts always.
        drawn = self.draw(np.ones(len(left)), num, left) if self.cfg.quotas else left
        rows = self.rng.permutation(drawn)[:num]
        return rows, np.full(len(rows), self.cfg.group_size)

    def finished(self, told: Sequence[Group]) -> str:
        return "complete" if sum(g.informative for g in told) >= self.cfg.prompts_per_step else ""

    def select(self, told: Sequence[Group]) -> Sequence[Group]:
        return [g for g in told if g.informative][: self.cfg.prompts_per_step]
