"""CurES (arXiv 2510.01037): sample prompts where the gradient signal is largest, spend rollouts where its variance is.

Departures from the paper, each measured to help or needed to be exact: the posterior has a pooled prior, fades, and
suspects dead prompts; the signal of a prompt is drawn from its posterior (Thompson) instead of being taken at the mean;
the budget is split over the drawn prompts, and exactly, or given to those that fail a first rollout (screening).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cures_core.config.curriculum import CuresConfig, EqualAllocation, ScreenAllocation, SingleAllocation
from cures_core.curriculum import beta
from cures_core.curriculum.allocation import allocate, allocate_equally
from cures_core.curriculum.beta import Floats
from cures_core.curriculum.posterior import Ints, Posterior
from cures_core.curriculum.sampling import effective_sample_size, probabilities, weight_ratio, weights
from cures_core.curriculum.strategies.strategy import Strategy, spread_of
from cures_core.prompts import PromptSet
from cures_core.terms import Group

_DEAD = 0.5  # a prompt that is more likely dead than not is not worth more rollouts in a step
_FRESH_ROWS = 65_536  # a pool up to this size is looked at whole in every step


class CuresCurriculum(Strategy):
    """One round a step, or two with screening.

    Figures: effective sample size of the distribution (prompts), largest over smallest weight.

    In a pool of more than 65,536 prompts a step renews the weights of those it was told about and of an eighth of the
    others in turn; the rest keep theirs, at most eight steps old.
    """

    cfg: CuresConfig
    holds_quotas = True

    def __init__(self, cfg: CuresConfig, prompts: PromptSet, posterior: Posterior, seed: int) -> None:
        super().__init__(cfg, prompts, posterior, seed)
        self._weight = np.ones(len(prompts))
        self._renewed = 0  # where the next block begins
        self._due: Ints | slice = slice(None)

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        allocation = self.cfg.allocation
        if round_ > 0 and isinstance(allocation, ScreenAllocation):
            rows = self._to_continue(self.told_so_far)
            counts = allocate_equally(len(rows), min(budget, len(rows) * (allocation.max_rollouts - 1)), self.rng)
            return rows[counts > 0], counts[counts > 0]
        num = min(self.cfg.prompts_per_step, len(self.prompts), budget // self.cfg.fewest_rollouts)
        p = self._distribution()
        rows = self.draw(p, num)
        self.note(effective_sample_size=effective_sample_size(p), weight_ratio=weight_ratio(p))
        self._due = self._next_due(rows)
        if isinstance(allocation, ScreenAllocation | SingleAllocation):
            return rows, np.ones(len(rows), dtype=np.int64)
        if isinstance(allocation, EqualAllocation):
            return rows, allocate_equally(len(rows), budget, self.rng)
        low, high = allocation.min_rollouts, allocation.max_rollouts
        # What is expected of the variance that is allocated by: a dead prompt's is 0.
        alive = np.sqrt(1 - self.posterior.dead(rows))
        spread = alive * beta.expected_spread(*self.posterior.parameters(rows))
        return rows, allocate(spread, min(budget, high * len(rows)), low, high)

    def finished(self, told: Sequence[Group]) -> str:
        if not isinstance(self.cfg.allocation, ScreenAllocation):
            return "complete"
        spent = sum(g.request.n for g in told)
        first_round = spent == len(told)
        goes_on = first_round and spent < self.cfg.rollouts_per_step and len(self._to_continue(told)) > 0
        return "" if goes_on else "complete"

    def _to_continue(self, told: Sequence[Group]) -> Ints:
        """Rows that failed their first rollout, without those taken for dead."""
        rows = np.sort(self.posterior.rows([g.request.prompt.id for g in told if g.failures]))
        return rows[self.posterior.dead(rows) < _DEAD]

    def signal(self, rows: Ints | slice = slice(None)) -> Floats:
        """What each prompt is worth now, in 0..1; near 0 where it is taken for dead."""
        a, b = self.posterior.parameters(rows)
        if self.cfg.signal in ("thompson", "thompson_failure"):
            rates = self.rng.beta(a, b)
            worth = spread_of(rates) if self.cfg.signal == "thompson" else 1 - rates
            return worth * (self.rng.random(len(rates)) >= self.posterior.dead(rows))
        formula = beta.plugin_spread if self.cfg.signal == "plugin_spread" else beta.expected_variance
        return (1 - self.posterior.dead(rows)) * formula(a, b)

    def _distribution(self) -> Floats:
        self._weight[self._due] = weights(self.signal(self._due), self.cfg.weighting)
        return probabilities(self._weight, self.cfg.explore)

    def state_dict(self) -> dict[str, Any]:
        due = np.arange(len(self.prompts)) if isinstance(self._due, slice) else self._due.copy()
        return {
            **super().state_dict(),
            "weight": self._weight.copy(),
            "renewed": self._renewed,
            "due": due,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._weight, self._renewed, self._due = state["weight"].copy(), int(state["renewed"]), state["due"].copy()

    def _next_due(self, drawn: Ints) -> Ints | slice:
        """Rows to renew in the next step: those drawn now, and the next block of the pool."""
        num = len(self.prompts)
        if num <= _FRESH_ROWS:
            return slice(None)
        block = np.arange(self._renewed, self._renewed + max(_FRESH_ROWS, -(-num // 8))) % num
        self._renewed = int(block[-1] + 1) % num
        return np.union1d(block, drawn)
