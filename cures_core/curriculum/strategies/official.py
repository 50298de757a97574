"""CurES as its published code behaves (commit eccf298), faults included, so that a comparison can show them.

Weights exp(s / ((successes + 1) / 0.01)), computed once: next to uniform, the largest at no success at all. Sizes are
round(budget * w) with w normalised over the whole set instead of the drawn batch, so that a large set rounds to 0 or 2
rollouts each, and prompts of size 0 are drawn in vain. Verdicts of training never reach the posterior. Deviation: sizes
are cut where a step would exceed its budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cures_core.config.curriculum import OfficialConfig
from cures_core.curriculum.beta import plugin_spread
from cures_core.curriculum.posterior import Ints, Posterior
from cures_core.curriculum.sampling import draw, effective_sample_size, weight_ratio
from cures_core.curriculum.strategies.base import Strategy
from cures_core.prompts import PromptSet


class OfficialCurriculum(Strategy):
    """One round a step. The posterior is kept for calibration only."""

    cfg: OfficialConfig

    def __init__(self, cfg: OfficialConfig, prompts: PromptSet, posterior: Posterior, seed: int) -> None:
        super().__init__(cfg, prompts, posterior, seed)
        self._spread = plugin_spread(*posterior.parameters())
        self._successes = posterior.successes.copy()

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        log_w = self._spread / ((self._successes + 1) / self.cfg.entropy)
        p = np.exp(log_w - np.logaddexp.reduce(log_w))
        self.note(effective_sample_size=effective_sample_size(p), weight_ratio=weight_ratio(p))
        rows = draw(p, min(self.cfg.prompts_per_step, len(self.prompts)), self.rng)
        share = self._spread / max(self._spread.sum(), 1e-12)
        sizes = np.round(self.cfg.rollouts_per_step * share[rows]).astype(np.int64)
        kept = (sizes > 0) & (np.cumsum(sizes) <= budget)
        return rows[kept], sizes[kept]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "spread": self._spread.copy(), "successes": self._successes.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._spread, self._successes = state["spread"].copy(), state["successes"].copy()
