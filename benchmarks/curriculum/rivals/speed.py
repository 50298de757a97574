"""Screening (SPEED, arXiv 2506.09016): few rollouts of many prompts, then more of those with mixed results.

Screening rollouts are trained on with the continuation, as one group. Deviations: screening and continuation belong to
one step, instead of being pre-fetched across steps; the continuation is what is left of the budget, in equal parts up
to a limit, instead of a fixed number of rollouts; where more prompts are mixed than a step continues, the rest are
discarded instead of kept for the next step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field, model_validator

from cures_core.curriculum import Strategy, StrategyOptions, allocate_equally
from cures_core.curriculum.posterior import Ints
from cures_core.terms import Group


class SpeedOptions(StrategyOptions):
    """Few rollouts of many prompts, then more of those that are neither all right nor all wrong."""

    screen: int = Field(default=4, ge=2)
    """Rollouts of a screened prompt."""
    screen_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the budget that goes into screening."""
    group_size: int = Field(default=16, ge=3)
    """Most rollouts of a continued prompt, screening included. `prompts_per_step` is how many are continued at most."""

    @model_validator(mode="after")
    def _continuing_adds_rollouts(self) -> SpeedOptions:
        if self.group_size <= self.screen:
            raise ValueError(f"group_size {self.group_size} leaves nothing to continue after screen {self.screen}")
        return self


class Speed(Strategy):
    """Two rounds: `screen` rollouts each, then the rest of the budget over the informative ones."""

    options_type = SpeedOptions
    options: SpeedOptions

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        if round_ == 0:
            num = int(budget * self.options.screen_share) // self.options.screen
            # In the order of the draw: the first mixed ones go on; order of id would always favour the same prompts.
            rows = self.rng.permutation(len(self.prompts))[: max(1, num)]
            return rows, np.full(len(rows), min(self.options.screen, budget))
        ids = [g.request.prompt.id for g in self.told_so_far if g.informative][: self.cfg.prompts_per_step]
        rows = np.sort(self.posterior.rows(ids))
        most = len(rows) * (self.options.group_size - self.options.screen)
        counts = allocate_equally(len(rows), min(budget, most), self.rng) if len(rows) else rows
        return rows[counts > 0], counts[counts > 0]

    def finished(self, told: Sequence[Group]) -> str:
        continued = any(g.request.n > self.options.screen for g in told)
        return "complete" if continued or not any(g.informative for g in told) else ""

    def select(self, told: Sequence[Group]) -> Sequence[Group]:
        return [g for g in told if g.informative][: self.cfg.prompts_per_step]
