"""CurES (arXiv 2510.01037): sample prompts where the gradient signal is largest, spend rollouts where its variance is.

Departures from the paper, each measured to help or needed to be exact: the posterior has a pooled prior, fades, and
suspects dead prompts; the signal of a prompt is drawn from its posterior (Thompson) instead of being taken at the mean;
the budget is split over the drawn prompts, and exactly.
"""

from __future__ import annotations

from cures_core.config.curriculum import CuresConfig, EqualAllocation
from cures_core.curriculum import beta
from cures_core.curriculum.allocation import allocate, allocate_equally
from cures_core.curriculum.beta import Floats
from cures_core.curriculum.posterior import Ints, Posterior
from cures_core.curriculum.sampling import draw, effective_sample_size, log_probabilities, weight_ratio
from cures_core.curriculum.strategies.base import Strategy, spread_of
from cures_core.prompts import PromptSet


class CuresCurriculum(Strategy):
    """One round a step. Figures: effective sample size of the distribution (prompts), largest over smallest weight."""

    cfg: CuresConfig

    def __init__(self, cfg: CuresConfig, prompts: PromptSet, posterior: Posterior, seed: int) -> None:
        super().__init__(cfg, prompts, posterior, seed)

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        num = min(self.cfg.prompts_per_step, len(self.prompts), budget // 2)
        log_p = log_probabilities(self.signal(), self.cfg.weighting, self.cfg.explore)
        rows = draw(log_p, num, self.rng)
        self.note(effective_sample_size=effective_sample_size(log_p), weight_ratio=weight_ratio(log_p))
        if isinstance(self.cfg.allocation, EqualAllocation):
            return rows, allocate_equally(num, budget, self.rng)
        low, high = self.cfg.allocation.min_rollouts, self.cfg.allocation.max_rollouts
        a, b = self.posterior.parameters(rows)
        return rows, allocate(beta.expected_spread(a, b), min(budget, high * num), low, high)

    def signal(self) -> Floats:
        """What each prompt is worth now, in 0..1; near 0 where it is taken for dead."""
        a, b = self.posterior.parameters()
        if self.cfg.signal == "thompson":
            rates = self.rng.beta(a, b)
            return spread_of(rates) * (self.rng.random(len(rates)) >= self.posterior.dead())
        alive = 1 - self.posterior.dead()
        if self.cfg.signal == "informative":
            group = self.cfg.rollouts_per_step // self.cfg.prompts_per_step
            return alive * beta.informative_probability(a, b, group)
        formula = {
            "expected_spread": beta.expected_spread,
            "plugin_spread": beta.plugin_spread,
            "expected_variance": beta.expected_variance,
        }
        return alive * formula[self.cfg.signal](a, b)
