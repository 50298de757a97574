"""Knapsack RL (arXiv 2509.25849): uniform prompts, the budget split so that the sum of values is largest.

The value of n rollouts of a prompt with pass rate p is the probability that its group is mixed, 1 - p^n - (1 - p)^n,
times what an update on it may gain, p (1 - p)^2. It is concave in n, so that the largest gains of single rollouts are
the best split, and no dynamic programme is needed. Deviations: p is the posterior's mean instead of the last epoch's
rate, so that a prompt never solved has a small value instead of none and needs no fall-back; prompts are drawn anew in
every step.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from cures_core.config.curriculum import StrategyConfig
from cures_core.curriculum import Strategy, StrategyOptions
from cures_core.curriculum.beta import Floats
from cures_core.curriculum.posterior import Ints


class KnapsackOptions(StrategyOptions):
    """Bounds of a prompt's group."""

    min_rollouts: int = Field(default=2, ge=2)
    """Fewest rollouts of a prompt."""
    max_rollouts: int = Field(default=128, ge=2)
    """Most rollouts of a prompt."""


class Knapsack(Strategy):
    """One round a step."""

    options_type = KnapsackOptions
    options: KnapsackOptions

    @classmethod
    def check(cls, cfg: StrategyConfig, options: StrategyOptions) -> None:
        assert isinstance(options, KnapsackOptions)
        cfg.check_budget(options.min_rollouts, options.max_rollouts)

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        low, high = self.options.min_rollouts, self.options.max_rollouts
        num = min(self.cfg.prompts_per_step, len(self.prompts), budget // low)
        rows = np.sort(self.rng.permutation(len(self.prompts))[:num])
        return rows, split(self.posterior.mean(rows), min(budget, high * num), low, high)


def value(rates: Floats, n: Ints) -> Floats:
    """Of n rollouts of prompts with these pass rates, elementwise."""
    return np.asarray((1 - rates**n - (1 - rates) ** n) * rates * (1 - rates) ** 2)


def split(rates: Floats, budget: int, low: int, high: int) -> Ints:
    """Rollouts of each prompt, (num,): `low` to `high`, `budget` in all, of the largest total value."""
    sizes = np.arange(low, high + 1)
    gains = np.diff(value(rates[:, None], sizes[None, :]), axis=1)
    spare = budget - low * len(rates)
    best = np.argsort(-gains, axis=None, kind="stable")[:spare]
    return np.asarray(low + np.bincount(best // max(1, gains.shape[1]), minlength=len(rates)), dtype=np.int64)
