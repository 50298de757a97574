"""Variance-minimising allocation (GVM-RAFT, arXiv 2505.02391): uniform prompts, rollouts falling with the pass rate.

n_i in proportion to 1 / sqrt(p_i + alpha / p_i^(beta - 1)), alpha and beta as in the authors' code. Deviations: the
gradient norm of a prompt is taken as equal for all; p is the posterior mean instead of the rate of a separate pilot
sample, so that a prompt never solved gets its share instead of nothing; sizes are bounded, and chosen for the drawn
prompts in every step instead of for the whole set once an iteration.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from cures_core.config.curriculum import StrategyConfig
from cures_core.curriculum import Strategy, StrategyOptions, allocate
from cures_core.curriculum.posterior import Ints


class GvmOptions(StrategyOptions):
    """More rollouts for prompts with low pass rates."""

    alpha: float = Field(default=1e-3, gt=0)
    """Damps the allocation for pass rates near zero."""
    beta: float = Field(default=2.0, ge=1)
    """How fast it is damped."""
    min_rollouts: int = Field(default=2, ge=2)
    """Fewest rollouts of a prompt."""
    max_rollouts: int = Field(default=32, ge=2)
    """Most rollouts of a prompt."""


class Gvm(Strategy):
    """One round a step."""

    options_type = GvmOptions
    options: GvmOptions

    @classmethod
    def check(cls, cfg: StrategyConfig, options: StrategyOptions) -> None:
        assert isinstance(options, GvmOptions)
        cfg.check_budget(options.min_rollouts, options.max_rollouts)

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        low, high = self.options.min_rollouts, self.options.max_rollouts
        num = min(self.cfg.prompts_per_step, len(self.prompts), budget // low)
        rows = np.sort(self.rng.permutation(len(self.prompts))[:num])
        rate = np.maximum(self.posterior.mean(rows), 1e-6)
        weight = 1 / np.sqrt(rate + self.options.alpha / rate ** (self.options.beta - 1))
        return rows, allocate(weight, min(budget, high * num), low, high)
