"""MoPPS (arXiv 2507.04632): out of random candidates, those whose drawn pass rate is nearest to a target.

A visit sets a prompt's counts to lambda times what they were plus what came out; between visits nothing fades. Settings
follow the authors' recipe in verl: Beta(1, 1), target 1/2, 8 or 16 candidates a prompt, lambda 1/2 (1 in their runs on
mathematics). Deviations: candidates are drawn anew every step instead of going through the set in epochs; the budget
need not divide, so groups may differ by one; a visit without a verdict changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from cures_core.config.curriculum import PosteriorConfig, StrategyConfig
from cures_core.curriculum import Strategy, StrategyOptions, allocate_equally
from cures_core.curriculum.beta import Floats
from cures_core.curriculum.posterior import Ints

POSTERIOR = PosteriorConfig(fading=1.0, pooling="none", strength=2.0, dead_prior=0.0)
"""As published: Beta(1, 1), and nothing fades by the step."""


class MoppsOptions(StrategyOptions):
    """Prompts whose drawn pass rate is nearest to a target, out of random candidates."""

    decay: float = Field(default=0.5, ge=0, le=1)
    """Lambda: factor on a prompt's counts when it is visited again, however long that took. 1 never forgets."""
    target: float = Field(default=0.5, gt=0, lt=1)
    """Pass rate that is wanted."""
    candidates: int = Field(default=16, ge=1)
    """Candidates for each prompt that is drawn."""


class Mopps(Strategy):
    """One round a step, equal groups, with its own forgetting in place of the posterior's."""

    options_type = MoppsOptions
    options: MoppsOptions

    @classmethod
    def check(cls, cfg: StrategyConfig, options: StrategyOptions) -> None:
        if cfg.posterior.fading != 1:
            raise ValueError(
                "it forgets by decay, not by the step; write curriculum.posterior = "
                '{fading = 1.0, pooling = "none", strength = 2.0, dead_prior = 0.0}, as published'
            )

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        num = min(self.cfg.prompts_per_step, len(self.prompts), budget // 2)
        candidates = self.rng.permutation(len(self.prompts))[: num * self.options.candidates]
        a, b = self.posterior.parameters(candidates)
        distance = np.abs(self.rng.beta(a, b) - self.options.target)
        rows = np.sort(candidates[np.argsort(distance, kind="stable")[:num]])
        return rows, allocate_equally(num, budget, self.rng)

    def count(self, ids: Sequence[str], successes: Floats, failures: Floats) -> None:
        visited = self.posterior.rows(ids)[successes + failures > 0]
        self.posterior.successes[visited] *= self.options.decay
        self.posterior.failures[visited] *= self.options.decay
        super().count(ids, successes, failures)
