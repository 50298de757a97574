"""MoPPS (arXiv 2507.04632): out of random candidates, those whose drawn pass rate is nearest to a target."""

from __future__ import annotations

import numpy as np

from cures_core.config.curriculum import MoppsConfig
from cures_core.curriculum.allocation import allocate_equally
from cures_core.curriculum.posterior import Ints
from cures_core.curriculum.strategies.base import Strategy


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
