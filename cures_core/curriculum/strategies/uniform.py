"""Every prompt equally often: what GRPO and REINFORCE++ do without a curriculum (arXiv 2402.03300, 2501.03262)."""

from __future__ import annotations

from cures_core.curriculum.allocation import allocate_equally
from cures_core.curriculum.posterior import Ints
from cures_core.curriculum.strategies.strategy import Strategy


class UniformCurriculum(Strategy):
    """Independent uniform draws without replacement within a step, equal groups."""

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        num = min(self.cfg.prompts_per_step, len(self.prompts), budget // 2)
        rows = self.rng.permutation(len(self.prompts))[:num]
        rows.sort()
        return rows, allocate_equally(num, budget, self.rng)
