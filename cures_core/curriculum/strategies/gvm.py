"""Variance-minimising allocation (GVM-RAFT, arXiv 2505.02391): uniform prompts, rollouts falling with the pass rate.

n_i in proportion to 1 / sqrt(p_i + alpha / p_i^(beta - 1)), alpha and beta as in the authors' code. Deviations: the
gradient norm of a prompt is taken as equal for all; p is the posterior mean instead of the rate of a separate pilot
sample, so that a prompt never solved gets its share instead of nothing; sizes are bounded, and chosen for the drawn
prompts in every step instead of for the whole set once an iteration.
"""

from __future__ import annotations

import numpy as np

from cures_core.config.curriculum import GvmConfig
from cures_core.curriculum.allocation import allocate
from cures_core.curriculum.posterior import Ints
from cures_core.curriculum.strategies.strategy import Strategy


class GvmCurriculum(Strategy):
    """One round a step."""

    cfg: GvmConfig

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        low, high = self.cfg.min_rollouts, self.cfg.max_rollouts
        num = min(self.cfg.prompts_per_step, len(self.prompts), budget // low)
        rows = np.sort(self.rng.permutation(len(self.prompts))[:num])
        rate = np.maximum(self.posterior.mean(rows), 1e-6)
        weight = 1 / np.sqrt(rate + self.cfg.alpha / rate ** (self.cfg.beta - 1))
        return rows, allocate(weight, min(budget, high * num), low, high)
