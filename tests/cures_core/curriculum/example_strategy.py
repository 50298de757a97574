"""Examples of strategies of one's own.

curriculum.type = "custom", curriculum.strategy = "tests.cures_core.curriculum.example_strategy:LongestAgo"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from cures_core.config.curriculum import StrategyConfig
from cures_core.curriculum import Strategy, StrategyOptions, allocate_equally


class LongestAgoOptions(StrategyOptions):
    """What `curriculum.options` may hold."""

    luck: float = Field(default=1.0, ge=0)
    """Steps by which chance may change the order."""


class LongestAgo(Strategy):
    """The prompts that were visited longest ago.

    `ask`, `tell`, posterior, calibration and saved state are inherited: only the choice is written here.
    """

    options_type = LongestAgoOptions
    options: LongestAgoOptions

    @classmethod
    def check(cls, cfg: StrategyConfig, options: StrategyOptions) -> None:
        if cfg.prompts_per_step == 13:
            raise ValueError("13 brings bad luck: set prompts_per_step to another number")

    def choose(self, budget: int, round_: int) -> tuple[np.ndarray, np.ndarray]:
        num = min(self.cfg.prompts_per_step, len(self.prompts), budget // 2)
        # Ties (at first, everything) are broken by the generator that is part of the saved state.
        luck = self.rng.random(len(self.prompts)) * self.options.luck
        rows = np.sort(np.argsort(self.posterior.touched + luck, kind="stable")[:num])
        return rows, allocate_equally(num, budget, self.rng)


class OnceEach(Strategy):
    """One rollout of each of the least visited prompts, each counted as half of one: with a state of its own."""

    fewest_rollouts = 1

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._visits = np.zeros(len(self.prompts), dtype=np.int64)

    def choose(self, budget: int, round_: int) -> tuple[np.ndarray, np.ndarray]:
        num = min(self.cfg.prompts_per_step, budget)
        order = np.lexsort([self.rng.random(len(self.prompts)), self._visits])
        rows = np.sort(order[:num])
        return rows, np.ones(len(rows), dtype=np.int64)

    def count(self, ids: Sequence[str], successes: Any, failures: Any) -> None:
        super().count(ids, successes / 2, failures / 2)
        self._visits[self.posterior.rows(ids)] += 1

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "visits": self._visits.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._visits = state["visits"].copy()
