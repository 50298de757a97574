"""Arc-length curriculum (a preprint's idea, not verified here): pass rates seen as psi = asin(sqrt(p)).

In psi an observation of n rollouts has the variance 1 / (4 n) whatever p is, so a scalar Kalman filter with drift
follows each prompt. Prompts are drawn by N(psi; psi*, width^2) times the probability of an informative group, 1 -
exp(-n psi^2) - exp(-n (pi/2 - psi)^2). The target psi* is the lowest one whose predicted yield is within `tolerance`
of the best: it hardens as the policy improves. Ours, where the summary this follows leaves it open: psi of a prompt is
drawn from its estimate instead of taken at the mean; a prompt that was never visited starts at the mean of the visited
ones, with a variance of 0.4; the target is one of 19 rates from 0.05 to 0.95. No spare candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from cures_core.config.curriculum import StrategyConfig
from cures_core.curriculum import (
    Posterior,
    Strategy,
    StrategyOptions,
    allocate_equally,
    draw,
    effective_sample_size,
)
from cures_core.curriculum.beta import Floats
from cures_core.curriculum.posterior import Ints
from cures_core.prompts import PromptSet

_START, _WIDE = np.pi / 4, 0.4  # p = 1/2, known to about nothing


class ArcOptions(StrategyOptions):
    """A Kalman filter of the arc length of every prompt, and a target that hardens."""

    drift: float = Field(default=0.01, ge=0)
    """Variance that a step adds to every prompt's estimate."""
    width: float = Field(default=0.3, gt=0)
    """Standard deviation of the kernel around the target, in arc length."""
    tolerance: float = Field(default=0.03, ge=0, lt=1)
    """The target is the lowest rate whose predicted yield is within this of the best."""


class Arc(Strategy):
    """One round a step, equal groups."""

    options_type = ArcOptions
    options: ArcOptions

    def __init__(self, cfg: StrategyConfig, prompts: PromptSet, posterior: Posterior, seed: int) -> None:
        super().__init__(cfg, prompts, posterior, seed)
        mean = posterior.mean()
        known = posterior.evidence()
        self._psi = np.where(known > 0, np.arcsin(np.sqrt(mean)), _START)
        self._variance = np.where(known > 0, 1 / (4 * np.maximum(known, 1.0)), _WIDE)
        self._seen = known > 0

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        self._variance = np.minimum(self._variance + self.options.drift, _WIDE)
        num = min(self.cfg.prompts_per_step, len(self.prompts), budget // 2)
        psi = np.where(self._seen, self._psi, self._start())
        drawn = np.clip(self.rng.normal(psi, np.sqrt(self._variance)), 0.0, np.pi / 2)
        if not num:  # the budget feeds no group
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        n = budget / num
        yield_ = informative(drawn, n)
        target = self._target(yield_, drawn, n)
        log_w = -((drawn - target) ** 2) / (2 * self.options.width**2) + np.log(np.maximum(yield_, 1e-9))
        p = np.exp(np.maximum(log_w - np.logaddexp.reduce(log_w), -690.0))
        self.note(effective_sample_size=effective_sample_size(p), target_rate=float(np.sin(target) ** 2))
        return draw(p, num, self.rng), allocate_equally(num, budget, self.rng)

    def count(self, ids: Sequence[str], successes: Floats, failures: Floats) -> None:
        super().count(ids, successes, failures)
        start = self._start()
        numbers = successes + failures
        for row, right, n in zip(self.posterior.rows(ids), successes, numbers, strict=True):
            if not n:
                continue
            observed = np.arcsin(np.sqrt(right / n))
            gain = self._variance[row] / (self._variance[row] + 1 / (4 * n))
            before = self._psi[row] if self._seen[row] else start
            self._psi[row] = before + gain * (observed - before)
            self._variance[row] *= 1 - gain
            self._seen[row] = True

    def state_dict(self) -> dict[str, Any]:
        arrays = {"psi": self._psi.copy(), "variance": self._variance.copy(), "seen": self._seen.astype(np.int64)}
        return {**super().state_dict(), **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._psi, self._variance = state["psi"].copy(), state["variance"].copy()
        self._seen = state["seen"].astype(bool)

    def _start(self) -> float:
        """Where a prompt that was never visited starts."""
        return float(self._psi[self._seen].mean()) if self._seen.any() else _START

    def _target(self, yield_: Floats, psi: Floats, n: float) -> float:
        """The lowest target on a grid whose kernel-weighted yield is within the tolerance of the best one."""
        grid = np.arcsin(np.sqrt(np.linspace(0.05, 0.95, 19)))
        kernel = np.exp(-((psi[None, :] - grid[:, None]) ** 2) / (2 * self.options.width**2))
        predicted = (kernel * yield_).sum(axis=1) / np.maximum(kernel.sum(axis=1), 1e-12)
        return float(grid[np.flatnonzero(predicted >= predicted.max() - self.options.tolerance)[0]])


def informative(psi: Floats, n: float) -> Floats:
    """Lower bound of the probability that a group of n is informative."""
    return np.asarray(np.clip(1 - np.exp(-n * psi**2) - np.exp(-n * (np.pi / 2 - psi) ** 2), 0.0, 1.0))
