"""CurES as its published code and scripts behave (github.com/ZexuSun/CurES), faults included, for the record.

Subsets as in `paper`, each probed with 4 rollouts a prompt; weights and sizes are then fixed until the next subset.
Weights are exp(s / ((successes + 1) / 0.01)): next to uniform, the largest at no success at all. Sizes come from the
raw rate, so 0 of 4 and 4 of 4 get none for good, although they are drawn as often as any. They are round(budget * w)
with w normalised over the part of the subset that one of eight processes probes, not over the drawn batch, and each is
rolled out four times over: what a step spends has nothing to do with its budget. Verdicts of training never reach them.

Deviations: gradient norms are taken as equal for all prompts (there: of the embedding matrix, one backward pass a
rollout); an unknown verdict is not a failure; probing is paid from steps that train on nothing; where a step would
exceed its budget, prompts are dropped at random; sizes are not padded to a multiple of the number of GPUs; a batch of
size 0 counts as a step; the optimizer is not reset between subsets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from cures_core.config.curriculum import PosteriorConfig, ProtocolSettings, StrategyConfig
from cures_core.curriculum import Posterior, StrategyOptions, draw, effective_sample_size, weight_ratio
from cures_core.curriculum.beta import Floats, plugin_spread
from cures_core.curriculum.posterior import Ints
from cures_core.curriculum.strategies.paper import ProtocolCurriculum
from cures_core.curriculum.strategies.strategy import spread_of
from cures_core.prompts import PromptSet
from cures_core.terms import Group

POSTERIOR = PosteriorConfig(fading=1.0, group_fading=1.0, pooling="none", strength=2.0, dead_prior=0.0)
"""As published: Beta(1, 1), nothing fades within a subset."""


class OfficialOptions(StrategyOptions, ProtocolSettings):
    """The protocol, and the constants of the published code."""

    entropy: float = Field(default=0.01, gt=0)
    """The divisor in its softmax, a constant there."""
    processes: int = Field(default=8, ge=1)
    """Processes that share the probing of a subset; each spreads the whole budget over its own part of it."""
    repeats: int = Field(default=4, ge=1)
    """Every size is rolled out this many times over."""


class Official(ProtocolCurriculum):
    """One round a step. The posterior is kept for calibration only, once a subset is probed."""

    options_type = OfficialOptions
    options: OfficialOptions

    @classmethod
    def check(cls, cfg: StrategyConfig, options: StrategyOptions) -> None:
        if cfg.posterior.fading != 1:
            raise ValueError(
                "what it has probed does not fade; write curriculum.posterior = {fading = 1.0, group_fading = 1.0, "
                'pooling = "none", strength = 2.0, dead_prior = 0.0}, as published'
            )

    @property
    def protocol(self) -> ProtocolSettings:
        return self.options

    def __init__(self, cfg: StrategyConfig, prompts: PromptSet, posterior: Posterior, seed: int) -> None:
        super().__init__(cfg, prompts, posterior, seed)
        self._weight, self._sizes = np.zeros(0), np.zeros(0, dtype=np.int64)  # of the members of the subset

    def train_on(self, members: Ints, budget: int) -> tuple[Ints, Ints]:
        if self._trained == 1:
            successes, failures = self.posterior.successes[members], self.posterior.failures[members]
            spread = plugin_spread(successes + 1, failures + 1)
            self._weight = np.exp(spread / ((successes + 1) / self.options.entropy))
            self._sizes = self._sized(spread_of(successes / np.maximum(successes + failures, 1)))
        p = self._weight / self._weight.sum()
        self.note(effective_sample_size=effective_sample_size(p), weight_ratio=weight_ratio(p))
        chosen = self.rng.permutation(draw(p, self.cfg.prompts_per_step, self.rng))
        kept = chosen[(self._sizes[chosen] > 0) & (np.cumsum(self._sizes[chosen]) <= budget)]
        return members[kept], self._sizes[kept]

    def finished(self, told: Sequence[Group]) -> str:
        return super().finished(told) if told else "nothing to do: every prompt of the draw has size 0"

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "weight": self._weight.copy(), "sizes": self._sizes.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._weight, self._sizes = state["weight"].copy(), state["sizes"].copy()

    def _sized(self, sigma: Floats) -> Ints:
        """Each process spreads the budget over its own prompts; then everything is repeated."""
        parts = np.array_split(sigma, min(self.options.processes, len(sigma)))
        sizes = [np.round(self.cfg.rollouts_per_step * part / max(part.sum(), 1e-12)) for part in parts]
        return np.asarray(self.options.repeats * np.concatenate(sizes), dtype=np.int64)
