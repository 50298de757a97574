"""Screening (SPEED, arXiv 2506.09016): few rollouts of many prompts, then more of those with mixed results.

Screening rollouts are trained on with the continuation, as one group. Deviations: screening and continuation belong to
one step, instead of being pre-fetched across steps; the continuation is what is left of the budget, in equal parts up
to a limit, instead of a fixed number of rollouts; where more prompts are mixed than a step continues, the rest are
discarded instead of kept for the next step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cures_core.config.curriculum import SpeedConfig
from cures_core.curriculum.allocation import allocate_equally
from cures_core.curriculum.posterior import Ints
from cures_core.curriculum.strategies.strategy import Strategy
from cures_core.terms import Group


class SpeedCurriculum(Strategy):
    """Two rounds: `screen` rollouts each, then the rest of the budget over the informative ones."""

    cfg: SpeedConfig

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        if round_ == 0:
            num = int(budget * self.cfg.screen_share) // self.cfg.screen
            # In the order of the draw: the first mixed ones go on; order of id would always favour the same prompts.
            rows = self.rng.permutation(len(self.prompts))[: max(1, num)]
            return rows, np.full(len(rows), min(self.cfg.screen, budget))
        ids = [g.request.prompt.id for g in self.told_so_far if g.informative][: self.cfg.prompts_per_step]
        rows = np.sort(self.posterior.rows(ids))
        most = len(rows) * (self.cfg.group_size - self.cfg.screen)
        counts = allocate_equally(len(rows), min(budget, most), self.rng) if len(rows) else rows
        return rows[counts > 0], counts[counts > 0]

    def finished(self, told: Sequence[Group]) -> str:
        continued = any(g.request.n > self.cfg.screen for g in told)
        return "complete" if continued or not any(g.informative for g in told) else ""

    def select(self, told: Sequence[Group]) -> Sequence[Group]:
        return [g for g in told if g.informative][: self.cfg.prompts_per_step]
