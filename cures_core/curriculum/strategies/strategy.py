"""What all strategies share: the book-keeping of ask and tell, the posterior, its calibration, and the saved state.

A strategy decides which prompts are asked for (`choose`) and when a step is over (`finished`). One of a user's own is a
subclass; what it may say and change beside that is listed in docs/curriculum.md.
"""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cures_core.config.base import Strict
from cures_core.config.curriculum import CustomConfig, StrategyConfig
from cures_core.curriculum.ask_tell import Batch
from cures_core.curriculum.beta import Floats
from cures_core.curriculum.calibration import Calibration
from cures_core.curriculum.posterior import Ints, Posterior
from cures_core.curriculum.quotas import Quotas
from cures_core.curriculum.sampling import draw
from cures_core.errors import ConfigError, CurriculumMisuse
from cures_core.means import ratio, valued
from cures_core.prompts import PromptSet
from cures_core.terms import Group, Request

_MOST_SOURCES = 24
"""Sources that the figures of a step speak of, at most."""


class StrategyOptions(Strict):
    """Base of a strategy's own settings: the fields that `curriculum.options` may hold, with their types and bounds."""


class Strategy(ABC):
    """Base of the strategies. One request a prompt a round; a round is one call of `ask`."""

    options_type: ClassVar[type[StrategyOptions] | None] = None
    """What `curriculum.options` must fit. None: it is not checked, and read from `self.cfg.options`."""
    fewest_rollouts: ClassVar[int] = 2
    """Of a drawn prompt, which a step's budget must be enough for: a group of one has no group baseline."""
    holds_quotas: ClassVar[bool] = False
    """Does it draw its prompts by `draw`? Who does not takes no `curriculum.quotas`."""
    options: StrategyOptions
    """The checked options. A subclass repeats this line with its own type."""

    def __init__(self, cfg: StrategyConfig, prompts: PromptSet, posterior: Posterior, seed: int) -> None:
        self.options = self.read_options(cfg)
        if not len(prompts):
            raise ConfigError("the prompt set is empty: nothing to draw from")
        if [x.decode() for x in posterior.ids.tolist()] != prompts.ids:
            raise ConfigError("posterior and prompt set differ: migrate the posterior first")
        self.cfg, self.prompts, self.posterior = cfg, prompts, posterior
        self.calibration = Calibration()
        num = min(cfg.prompts_per_step, len(prompts))
        self._quotas = Quotas(cfg.quotas, prompts.column("source"), num) if cfg.quotas else None
        self._sources = _sources(prompts)
        self._seed = seed
        self._rng = np.random.default_rng([seed, 0x43555252])
        self._step = 1  # the number of the one that is going on
        self._late: dict[str, Request] = {}  # deferred requests, which outlive their step
        self._begin()

    def _begin(self) -> None:
        """Nothing has come of the step so far."""
        self._round = self._spent = self._asked = 0  # rounds, rollouts told, prompts asked for in the last round
        self._open: dict[str, Request] = {}
        self._told: list[Group] = []
        self._figures: dict[str, float] = {}

    @classmethod
    def read_options(cls, cfg: StrategyConfig) -> StrategyOptions:
        """The options of this configuration, checked. Raises `ConfigError` naming every bad one."""
        if cfg.quotas and not cls.holds_quotas:
            raise ConfigError(
                f"curriculum.quotas: {cls.__name__} does not hold them. Draw its prompts by `self.draw`, and set "
                "`holds_quotas = True` in the class"
            )
        if not isinstance(cfg, CustomConfig):
            return StrategyOptions()
        try:
            options = StrategyOptions() if cls.options_type is None else cls.options_type.model_validate(cfg.options)
            cfg.check_budget(cls.fewest_rollouts)
            cls.check(cfg, options)
        except ValidationError as error:
            raise ConfigError("; ".join(_said(fault, cls) for fault in error.errors())) from error
        except ValueError as error:
            raise ConfigError(f"curriculum: {cfg.strategy}: {error}") from error
        return options

    @classmethod
    def check(cls, cfg: StrategyConfig, options: StrategyOptions) -> None:
        """Raise `ValueError` where settings do not go together. Called before any work. Default: they do."""
        return

    @property
    def rollouts_per_step(self) -> int:
        return self.cfg.rollouts_per_step

    @abstractmethod
    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        """(rows, rollouts of each) for the next round; at most `budget` rollouts in all. May be empty.

        Earlier rounds of the step are in `told_so_far`.
        """

    def finished(self, told: Sequence[Group]) -> str:
        """Why the step is over, or "" if another round is wanted. Default: after one round."""
        return "complete"

    def draw(self, p: Floats, num: int, rows: Ints | None = None) -> Ints:
        """At most `num` of `rows` (None: of all), without replacement, ascending: in proportion to `p`, one for each of
        these rows, as far as quotas leave it to the weights."""
        if self._quotas is None:
            drawn = draw(p, num, self.rng)
            return drawn if rows is None else rows[drawn]
        return self._quotas.draw(p, np.arange(len(self.prompts)) if rows is None else rows, num, self.rng)

    def bounded(self, p: Floats) -> Floats:
        """Probabilities of all prompts after the quotas, for who explains them."""
        return p if self._quotas is None else self._quotas.bounded(p, min(self.cfg.prompts_per_step, len(self.prompts)))

    @property
    def told_so_far(self) -> list[Group]:
        """This step's groups, one a prompt."""
        return merged(self._told)

    @property
    def step(self) -> int:
        """Number of the step that is going on, from 1."""
        return self._step

    @property
    def rng(self) -> np.random.Generator:
        """The generator that is part of the state: the only source of randomness there is."""
        return self._rng

    def select(self, told: Sequence[Group]) -> Sequence[Group]:
        """The groups that go into the loss. Default: all."""
        return told

    def count(self, ids: Sequence[str], successes: Floats, failures: Floats) -> None:
        """Take evidence of prompts, right and wrong rollouts of each; 0 and 0 where no verdict is known.

        Called once a `tell`, which is refused before where it is not right. Default: the posterior counts it.
        """
        self.posterior.update(ids, successes, failures, self._step)

    def ask(self, budget: int) -> list[Request]:
        if self._open:
            raise CurriculumMisuse(f"{len(self._open)} requests are still to be told before the next ask")
        rows, counts = self.choose(min(budget, self.cfg.rollouts_per_step - self._spent), self._round)
        seed = int(np.random.SeedSequence([self._seed, self._step, self._round]).generate_state(1, np.uint64)[0] >> 1)
        predicted = self.posterior.mean(rows)
        for i, (prompt, n) in enumerate(zip(self.prompts.at(rows), counts.tolist(), strict=True)):
            request = Request(f"{self._step}-{self._round}-{i}", prompt, n, seed, float(predicted[i]))
            self._open[request.id] = request
        self._round += 1
        self._asked = len(rows)
        return list(self._open.values())

    def tell(self, groups: Sequence[Group]) -> None:
        self._check(groups)
        successes = np.array([g.successes for g in groups], dtype=np.float64)
        failures = np.array([g.failures for g in groups], dtype=np.float64)
        asked = {**self._late, **self._open}
        predicted = np.array([asked[g.request.id].expected for g in groups], dtype=np.float64)
        told = {f"calibration_{k}": v for k, v in self.calibration.add(predicted, successes, failures).items()}
        if self._round == 1:
            self._figures |= told
        self.count([g.request.prompt.id for g in groups], successes, failures)
        for group in groups:
            name = group.request.id
            if self._late.pop(name, None) is None:
                del self._open[name]
                self._told.append(group)
                self._spent += len(group.verdicts)

    def ready(self) -> Batch | None:
        if self._open or not self._round:
            return None
        told = merged(self._told)
        reason = self.finished(told)
        can_go_on = self._asked > 0 and self._spent < self.cfg.rollouts_per_step
        if not reason and can_go_on:
            return None
        informative = sum(g.informative for g in told)
        return self._close(
            told, reason or f"budget spent: {informative} of {self.cfg.prompts_per_step} informative groups"
        )

    def defer(self) -> Batch:
        """Close the step now. What is still open may be told in any later step, and counts when it arrives.

        For trainers whose rollouts of several steps overlap; a strategy with several rounds a step gets one.
        """
        if not self._round:
            raise CurriculumMisuse("no step is going on: there is nothing to defer")
        num = len(self._open)
        self._late |= self._open
        self._open = {}
        return self._close(merged(self._told), f"{num} requests deferred")

    @property
    def deferred(self) -> list[Request]:
        """Requests of earlier steps that are still to be told, in the order in which they were asked."""
        return list(self._late.values())

    def _close(self, told: list[Group], reason: str) -> Batch:
        chosen = sorted(self.select(told), key=lambda g: not g.informative)
        batch = Batch(chosen, reason, self._step_figures(told))
        self._step += 1
        self._begin()
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Between steps only. JSON values and numpy arrays; a subclass adds its own, under names of its own."""
        if self._round or self._open:
            raise CurriculumMisuse("a step is going on: the state can be saved between steps only")
        late = [[q.id, q.prompt.id, q.n, q.seed, q.expected] for q in self._late.values()]
        return {
            "type": self._kind,
            "prompts": self.prompts.digest,
            "seed": self._seed,
            "step": self._step,
            "rng": copy.deepcopy(self._rng.bit_generator.state),
            "posterior": self.posterior.state_dict(),
            "calibration": self.calibration.state_dict(),
            **({"late": late} if late else {}),
            **({} if self._quotas is None else {"quota_carry": self._quotas.carry.copy()}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        # Earlier versions called every strategy of a user's own `custom`.
        if state["type"] not in (self._kind, getattr(self.cfg, "type", self._kind)):
            raise ConfigError(f"the saved state is of the strategy {state['type']}, this one is {self._kind}")
        if state["prompts"] != self.prompts.digest:
            raise ConfigError("the saved state is of another prompt set")
        self.posterior.load_state_dict(state["posterior"])  # refuses, before anything is changed, what is not its own
        self._seed, self._step = int(state["seed"]), int(state["step"])
        self._rng.bit_generator.state = copy.deepcopy(state["rng"])
        self._begin()  # states are of between steps: one that was going on here is given up
        self.calibration.load_state_dict(state["calibration"])
        late = state.get("late", [])
        prompts = self.prompts.at(self.posterior.rows([row[1] for row in late]))
        self._late = {
            row[0]: Request(row[0], prompt, row[2], row[3], row[4]) for row, prompt in zip(late, prompts, strict=True)
        }
        carry = state.get("quota_carry")
        if self._quotas is not None and carry is not None and carry.shape == self._quotas.carry.shape:
            self._quotas.carry = carry.copy()  # of other quotas nothing is carried over

    def note(self, **figures: float) -> None:
        """Add to the step's figures."""
        self._figures |= figures

    @property
    def _kind(self) -> str:
        if isinstance(self.cfg, CustomConfig):
            return self.cfg.strategy
        return str(getattr(self.cfg, "type", type(self).__name__))

    def _check(self, groups: Sequence[Group]) -> None:
        seen: set[str] = set()
        for group in groups:
            name = group.request.id
            request = self._open.get(name) or self._late.get(name)
            if request is None:
                raise CurriculumMisuse(f"request {name} was not asked for, or was told before; nothing was counted")
            if name in seen:
                raise CurriculumMisuse(f"request {name} occurs twice in one tell; nothing was counted")
            if len(group.verdicts) != request.n:
                raise CurriculumMisuse(
                    f"request {name} asked for {request.n} rollouts and was told {len(group.verdicts)}; "
                    "nothing was counted"
                )
            seen.add(name)

    def _step_figures(self, told: Sequence[Group]) -> dict[str, float]:
        return {
            "groups": float(len(told)),
            "step_rollouts": float(self._spent),
            **valued(
                informative_share=ratio(sum(g.informative for g in told), len(told)),
                all_right_share=ratio(sum(g.successes > 0 and not g.failures for g in told), len(told)),
                all_wrong_share=ratio(sum(g.failures > 0 and not g.successes for g in told), len(told)),
                unknown_share=ratio(sum(g.unknown for g in told), self._spent),
            ),
            **self._by_source(told),
            **self._figures,
        }

    def _by_source(self, told: Sequence[Group]) -> dict[str, float]:
        """Of each source its share of the step's prompts, and of its known rollouts the share that is right."""
        groups: defaultdict[str, list[Group]] = defaultdict(list)
        for group in told:
            groups[group.request.prompt.source].append(group)
        figures: dict[str, float | None] = {}
        for name in self._sources:
            right, wrong = sum(g.successes for g in groups[name]), sum(g.failures for g in groups[name])
            label = re.sub(r"[^\w-]", "_", name) or "none"  # what every tracker takes as a name
            figures[f"draw_share/{label}"] = ratio(len(groups[name]), len(told))
            figures[f"correct_share/{label}"] = ratio(right, right + wrong)
        return valued(**figures)


def _sources(prompts: PromptSet) -> list[str]:
    """The sources that figures are told of: none where there is but one, or where there are too many to be read."""
    found = sorted(prompts.table.column("source").unique().to_pylist())
    return found if 1 < len(found) <= _MOST_SOURCES else []


def _said(fault: ErrorDetails, strategy: type[Strategy]) -> str:
    """What is wrong with one option."""
    name = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden" and strategy.options_type is not None:
        known = ", ".join(strategy.options_type.model_fields) or "none"
        return f"curriculum.options.{name}: {strategy.__name__} has no such option; its options are {known}"
    if not name:
        return f"curriculum.options: {fault['msg'].removeprefix('Value error, ')}"
    return f"curriculum.options.{name}: {fault['msg'].removeprefix('Value error, ')} (got {fault['input']!r})"


def merged(groups: Sequence[Group]) -> list[Group]:
    """One group a prompt: what several rounds of a step have brought of it, under the first request."""
    by_prompt: dict[str, list[Group]] = {}
    for group in groups:
        by_prompt.setdefault(group.request.prompt.id, []).append(group)
    return [
        parts[0]
        if len(parts) == 1
        else Group(
            replace(parts[0].request, n=sum(p.request.n for p in parts)),
            [r for p in parts for r in p.rollouts],
            [v for p in parts for v in p.verdicts],
        )
        for parts in by_prompt.values()
    ]


def spread_of(rates: Floats) -> Floats:
    """sqrt(p (1 - p))."""
    return np.asarray(np.sqrt(rates * (1 - rates)))
