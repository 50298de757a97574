"""Every prompt equally often: what GRPO and REINFORCE++ do without a curriculum (arXiv 2402.03300, 2501.03262)."""

from __future__ import annotations

import numpy as np

from cures_core.curriculum.allocation import allocate_equally
from cures_core.curriculum.posterior import Ints
from cures_core.curriculum.strategies.strategy import Strategy


class UniformCurriculum(Strategy):
    """Independent uniform draws without replacement within a step, equal groups."""

    holds_quotas = True

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        num = min(self.cfg.prompts_per_step, len(self.prompts), budget // 2)
        if self.cfg.quotas:
            rows = self.draw(np.ones(len(self.prompts)), num)
        else:  # the same in distribution, in fewer random numbers
            rows = np.sort(self.rng.permutation(len(self.prompts))[:num])
        return rows, allocate_equally(len(rows), budget, self.rng)
