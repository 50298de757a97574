"""An example of a strategy of one's own: the prompts that were visited longest ago.

curriculum.type = "custom", curriculum.strategy = "tests.cures_core.curriculum.example_strategy:LongestAgo"
"""

from __future__ import annotations

import numpy as np

from cures_core.config.curriculum import CustomConfig
from cures_core.curriculum import Strategy
from cures_core.curriculum.allocation import allocate_equally


class LongestAgo(Strategy):
    """`ask`, `tell`, posterior, calibration and saved state are inherited: only the choice is written here."""

    cfg: CustomConfig

    def choose(self, budget: int, round_: int) -> tuple[np.ndarray, np.ndarray]:
        num = min(self.cfg.prompts_per_step, len(self.prompts), budget // 2)
        # Ties (at first, everything) are broken by the generator that is part of the saved state.
        luck = self.rng.random(len(self.prompts)) * float(self.cfg.options.get("luck", 1.0))
        rows = np.sort(np.argsort(self.posterior.touched + luck, kind="stable")[:num])
        return rows, allocate_equally(num, budget, self.rng)
