"""How good were the predictions? Pass rates predicted before a step's rollouts against what came out."""

from __future__ import annotations

from typing import Any

import numpy as np

from cures_core.curriculum.beta import Floats
from cures_core.means import ratio, valued

BINS = 10


class Calibration:
    """Sums over all groups seen so far. Prediction: expected pass rate; outcome: share of correct rollouts."""

    def __init__(self) -> None:
        self.sums = np.zeros(7)
        """Groups, |error|, predicted, observed, predicted^2, observed^2, predicted x observed."""
        self.bins = np.zeros((BINS, 3))
        """By bin of the prediction: rollouts, sum of predictions, correct rollouts."""
        self.brier = 0.0
        """Sum over rollouts of (prediction - outcome)^2."""

    def add(self, predicted: Floats, successes: Floats, failures: Floats) -> dict[str, float]:
        """Count groups with at least one verdict and return their own figures; arrays of shape (groups,)."""
        known = successes + failures > 0
        p, s, n = predicted[known], successes[known], (successes + failures)[known]
        step = Calibration()
        if len(p):
            q = s / n
            step.sums = np.array([len(p), np.abs(p - q).sum(), p.sum(), q.sum(), p @ p, q @ q, p @ q])
            where = np.minimum((p * BINS).astype(np.int64), BINS - 1)
            for column, value in enumerate((n, n * p, s)):
                step.bins[:, column] = np.bincount(where, value, BINS)
            step.brier = float(np.sum(s * (1 - p) ** 2 + (n - s) * p**2))
        self.sums += step.sums
        self.bins += step.bins
        self.brier += step.brier
        return step.figures()

    def figures(self) -> dict[str, float]:
        """mae and pearson over groups, brier over rollouts; what is not defined is left out."""
        num, error, p, q, pp, qq, pq = self.sums.tolist()
        rollouts = float(self.bins[:, 0].sum())
        spread = max(0.0, num * pp - p * p) * max(0.0, num * qq - q * q)
        return valued(
            mae=ratio(error, num),
            pearson=(num * pq - p * q) / spread**0.5 if spread > 1e-12 else None,
            brier=ratio(self.brier, rollouts),
        )

    def reliability(self) -> list[dict[str, float]]:
        """One row for each bin that has rollouts: mean prediction, observed share, rollouts."""
        return [{"predicted": p / n, "observed": s / n, "rollouts": n} for n, p, s in self.bins.tolist() if n > 0]

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums.copy(), "bins": self.bins.copy(), "brier": self.brier}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums, self.bins, self.brier = state["sums"].copy(), state["bins"].copy(), float(state["brier"])
