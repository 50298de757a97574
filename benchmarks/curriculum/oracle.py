"""What `cures` does with true pass rates, measured on the side and not paid for: a ceiling if their spread counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Literal

import numpy as np
from pydantic import Field

from benchmarks.curriculum.exact import ExactRates
from cures_core.config.curriculum import CuresConfig
from cures_core.curriculum.beta import Floats
from cures_core.curriculum.posterior import Ints
from cures_core.curriculum.strategies.cures import CuresCurriculum
from cures_core.curriculum.strategies.strategy import spread_of
from cures_core.epoch import roll_out
from cures_core.policy.loading import Policy
from cures_core.prompts import PromptSet
from cures_core.rewards.verifier import Verifier
from cures_core.rollout import RolloutEngine
from cures_core.terms import Group, Request

Rates = Callable[[], Floats]
_SAMPLES, _PARTS = 8, 8


class OracleConfig(CuresConfig):
    """Draws by the true pass rates."""

    type: Literal["oracle"] = "oracle"  # type: ignore[assignment]
    renew_every: int = Field(default=4, ge=1)
    """Steps after which the rates are measured anew, exact ones of all prompts, sampled ones of an eighth of them."""


class OracleCurriculum(CuresCurriculum):
    """Without exploration, and with no posterior to be wrong. `rates` has to be set before the first step."""

    cfg: OracleConfig
    rates: Rates

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        if round_ == 0 and (self.step - 1) % self.cfg.renew_every == 0:
            self._known = self.rates()
        return super().choose(budget, round_)

    def signal(self, rows: Ints | slice = slice(None)) -> Floats:
        return np.maximum(spread_of(self._known[rows]), 3e-3)  # a floor, for pools that are solved through and through

    def _to_continue(self, told: Sequence[Group]) -> Ints:
        rows = super()._to_continue(told)
        return rows[self._known[rows] > 1e-2]


def exact_rates(policy: Policy, prompts: PromptSet) -> Rates:
    """Of a world in which one completion alone is right."""
    known = ExactRates(policy, list(prompts))
    return lambda: known.measure()[0]


def sampled_rates(prompts: PromptSet, engine: RolloutEngine, verifier: Verifier) -> Rates:
    """By rollouts that no account holds: of every prompt at the first call, later of an eighth of them in turn, since
    all of them take several times what an arm itself does."""
    asked = [Request(f"oracle-{i}", prompt, _SAMPLES, 998) for i, prompt in enumerate(prompts)]
    known, turns = np.zeros(len(asked)), cycle(range(_PARTS))

    def measure(part: slice) -> None:
        known[part] = [group.successes / _SAMPLES for group in roll_out(asked[part], engine, verifier)]

    measure(slice(None))

    def rates() -> Floats:
        measure(slice(next(turns), None, _PARTS))
        return known.copy()

    return rates
