"""CurES by the published protocol (arXiv 2510.01037, section 4 and algorithm 1), with the budget counted honestly.

The prompt set is cut into disjoint subsets, taken in turn. A subset is probed (`probe` rollouts of every prompt),
then trained on for `steps_per_subset` steps: prompts by exp(s / tau) with s the spread of the posterior mean,
rollouts in proportion to s, then everything is forgotten. Deviations: probing is paid from the budget of steps that
train on nothing, or by the prior: prompts that have `probe` rollouts already when their turn comes are not probed
again (forgetting takes the prior's rollouts along, so this helps the first subset only); the rollouts of a step sum to
its budget, with at least 2 a prompt.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cures_core.config.curriculum import PaperConfig, ProtocolSettings, SoftmaxWeighting, StrategyConfig
from cures_core.curriculum.allocation import allocate
from cures_core.curriculum.beta import plugin_spread
from cures_core.curriculum.posterior import Ints, Posterior
from cures_core.curriculum.sampling import effective_sample_size, probabilities, weight_ratio, weights
from cures_core.curriculum.strategies.strategy import Strategy
from cures_core.prompts import PromptSet
from cures_core.terms import Group


class ProtocolCurriculum(Strategy):
    """Subsets, probed, trained on, forgotten. One round a step; a probing step ends with an empty batch and says so."""

    def __init__(self, cfg: StrategyConfig, prompts: PromptSet, posterior: Posterior, seed: int) -> None:
        super().__init__(cfg, prompts, posterior, seed)
        order = np.random.default_rng([seed, 0x5355425345]).permutation(len(prompts))
        self._subsets = [np.sort(part) for part in np.array_split(order, min(self.protocol.subsets, len(prompts)))]
        self._subset, self._probed, self._trained = 0, 0, 0
        self._predicted = posterior.predicted  # is no part of a posterior's state
        self._forgotten = False
        self._probing = False

    @property
    @abstractmethod
    def protocol(self) -> ProtocolSettings:
        """How many subsets, and what is done with each."""

    @abstractmethod
    def train_on(self, members: Ints, budget: int) -> tuple[Ints, Ints]:
        """(rows, rollouts of each) of a training step on the prompts of a probed subset."""

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        if self._trained == self.protocol.steps_per_subset:
            self._subset, self._probed, self._trained = (self._subset + 1) % len(self._subsets), 0, 0
            self.posterior.load_state_dict(
                {**Posterior.fresh(self.prompts, self.posterior.cfg).state_dict(), "step": self.posterior.step}
            )
            self.posterior.predicted, self._forgotten = None, True
        members = self._subsets[self._subset]
        rows = self._to_probe(members, budget)
        self._probing = bool(len(rows))
        if self._probing:
            return rows, np.full(len(rows), min(self.protocol.probe, budget))
        self._trained += 1
        return self.train_on(members, budget)

    def finished(self, told: Sequence[Group]) -> str:
        return f"probing subset {self._subset + 1}: {self._probed} prompts" if self._probing else "complete"

    def select(self, told: Sequence[Group]) -> Sequence[Group]:
        return [] if self._probing else told

    def state_dict(self) -> dict[str, Any]:
        own = {"subset": self._subset, "probed": self._probed, "trained": self._trained, "forgotten": self._forgotten}
        subsets = {str(i): part.copy() for i, part in enumerate(self._subsets)}
        return {**super().state_dict(), "protocol": own, "subsets": subsets}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        own = state["protocol"]
        self._subset, self._probed, self._trained = own["subset"], own["probed"], own["trained"]
        self._forgotten = own.get("forgotten", self._subset > 0)  # earlier versions did not say
        self.posterior.predicted = None if self._forgotten else self._predicted
        self._subsets = [state["subsets"][str(i)].copy() for i in range(len(state["subsets"]))]

    def _to_probe(self, members: Ints, budget: int) -> Ints:
        """The next prompts that lack evidence. `_probed` moves past them, so that unknown verdicts are not repeated."""
        rest = members[self._probed :]
        lacking = np.flatnonzero(self.posterior.evidence()[rest] < self.protocol.probe)[
            : max(1, budget // self.protocol.probe)
        ]
        self._probed += int(lacking[-1]) + 1 if len(lacking) else len(rest)
        return rest[lacking]


class PaperCurriculum(ProtocolCurriculum):
    """The protocol with the sampling and the allocation of the paper, at a fixed temperature."""

    cfg: PaperConfig
    holds_quotas = True

    @property
    def protocol(self) -> ProtocolSettings:
        return self.cfg

    def train_on(self, members: Ints, budget: int) -> tuple[Ints, Ints]:
        num = min(self.cfg.prompts_per_step, len(members), budget // 2)
        spread = plugin_spread(*self.posterior.parameters(members))
        p = probabilities(weights(spread, SoftmaxWeighting(temperature=self.cfg.temperature)), 0.0)
        self.note(effective_sample_size=effective_sample_size(p), weight_ratio=weight_ratio(p))
        rows = self.draw(p, num, members)
        high = self.cfg.max_rollouts
        chosen = spread[np.searchsorted(members, rows)]
        return rows, allocate(chosen, min(budget, high * len(rows)), 2, high)
