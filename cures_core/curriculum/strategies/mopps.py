"""MoPPS (arXiv 2507.04632): out of random candidates, those whose drawn pass rate is nearest to a target.

A visit sets a prompt's counts to lambda times what they were plus what came out; between visits nothing fades. Settings
follow the authors' recipe in verl: Beta(1, 1), target 1/2, 8 or 16 candidates a prompt, lambda 1/2 (1 in their runs on
mathematics). Deviations: candidates are drawn anew every step instead of going through the set in epochs; the budget
need not divide, so groups may differ by one; a visit without a verdict changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cures_core.config.curriculum import MoppsConfig
from cures_core.curriculum.allocation import allocate_equally
from cures_core.curriculum.posterior import Ints
from cures_core.curriculum.strategies.strategy import Strategy
from cures_core.terms import Group


class MoppsCurriculum(Strategy):
    """One round a step, equal groups. The published posterior is the default of its configuration."""

    cfg: MoppsConfig

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        num = min(self.cfg.prompts_per_step, len(self.prompts), budget // 2)
        candidates = self.rng.permutation(len(self.prompts))[: num * self.cfg.candidates]
        a, b = self.posterior.parameters(candidates)
        distance = np.abs(self.rng.beta(a, b) - self.cfg.target)
        rows = np.sort(candidates[np.argsort(distance, kind="stable")[:num]])
        return rows, allocate_equally(num, budget, self.rng)

    def tell(self, groups: Sequence[Group]) -> None:
        self._check(groups)  # a refused tell must not decay anything
        visited = self.posterior.rows([g.request.prompt.id for g in groups if g.successes + g.failures])
        self.posterior.successes[visited] *= self.cfg.decay
        self.posterior.failures[visited] *= self.cfg.decay
        super().tell(groups)
