"""The curriculum for a training loop of one's own: ids in, draws out, rewards back.

The same strategies as the pipeline's, without prompts' texts, rollouts and configuration files. docs/library.md says
what of it is stable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cures_core.config.curriculum import CuresConfig, CurriculumConfig
from cures_core.curriculum import tables
from cures_core.curriculum.migration import migrate
from cures_core.curriculum.posterior import Posterior
from cures_core.curriculum.registry import make_curriculum
from cures_core.curriculum.state_file import load_state, save_state
from cures_core.errors import ConfigError, CurriculumMisuse
from cures_core.prompts import PromptSet
from cures_core.terms import Group, Outcome, Request, Verdict

if TYPE_CHECKING:
    from cures_core.prompts.naming import AnswerRule, ProblemRule

_FORMAT = 1
_VERDICTS = [Verdict(outcome) for outcome in Outcome]


@dataclass(frozen=True, slots=True)
class Ask:
    """Roll out one prompt `n` times and answer with `Curriculum.tell(request_id, ...)`, once."""

    request_id: str
    id: str
    """The prompt's id."""
    row: int
    """Its place among the ids, or in the table, that the curriculum was made from."""
    n: int
    seed: int
    """Differs between steps, and is the same after a restart: with the row and the rollout's number it can seed a
    generator of completions."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step that is over: the prompts to train on, informative ones first, and why it ended."""

    ids: tuple[str, ...]
    rows: tuple[int, ...]
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the strategy has measured: effective sample size, informative share, calibration ..."""


class _CountedGroup(Group):
    """A group of which only the counts are known, and known at once."""

    __slots__ = ("failures", "successes", "unknown")

    def __init__(self, request: Request, correct: int, wrong: int, unknown: int) -> None:
        counts = (correct, wrong, unknown)
        super().__init__(request, (), [v for v, n in zip(_VERDICTS, counts, strict=True) for _ in range(n)])
        for name, count in zip(("successes", "failures", "unknown"), counts, strict=True):
            object.__setattr__(self, name, count)


class Curriculum:
    """Order of calls in one step: `ready()` is None -> `ask()` -> `tell(...)` for each ask -> `ready()` ... until
    `ready()` returns the step.

    Requests may be told in any order: what comes of it does not depend on the order. A strategy may ask several times
    in a step. Where the rollouts of several steps overlap, call `defer()` right after `ask()`: the step is over then,
    and its requests may be told whenever they are done.
    """

    def __init__(
        self,
        prompts: PromptSet,
        config: CurriculumConfig | None = None,
        *,
        seed: int = 0,
        posterior: Posterior | None = None,
        threshold: float = 0.5,
        rows: tables.Rows | None = None,
    ) -> None:
        """`posterior`: what an earlier run has learnt; prompts are matched by id. `threshold`: the least reward of a
        correct rollout. `rows`: numbers that asks carry, one a prompt in order of id. Without `config`: `cures`, 32
        prompts and 256 rollouts a step.

        Raises `ConfigError` for an empty set, and where `posterior` knows none of its prompts.
        """
        if not math.isfinite(threshold):
            raise ConfigError(f"threshold: {threshold} is not a finite number")
        config = CuresConfig(prompts_per_step=32, rollouts_per_step=256) if config is None else config
        self.prompts, self.config, self.threshold = prompts, config, threshold
        self._rows = np.arange(len(prompts)) if rows is None else rows
        start, self._matched = _start(posterior, prompts, config)
        self._strategy = make_curriculum(config, prompts, start, seed)
        self._round: dict[str, Request] = {}  # asked last, in order
        self._late: dict[str, Request] = {}  # deferred
        self._outcomes: dict[str, tuple[int, int, int]] = {}  # correct, wrong, unknown; not yet handed to the strategy
        self._counts = {"asked": 0, **{outcome.value: 0 for outcome in Outcome}}

    @classmethod
    def from_ids(
        cls,
        ids: Iterable[object],
        sources: Iterable[object] | None = None,
        levels: Iterable[object] | None = None,
        config: CurriculumConfig | None = None,
        **options: Any,
    ) -> Curriculum:
        """From ids (text or numbers, each once) and, where there are some, labels of as many; lists or arrays.

        Prompts of one source and level start from the pass rate of that group. `options` as of the constructor.
        """
        prompts, rows = tables.from_ids(ids, sources, levels)
        return cls(prompts, config, rows=rows, **options)

    @classmethod
    def from_table(
        cls,
        table: Any,
        config: CurriculumConfig | None = None,
        *,
        id: str | None = None,
        problem: str = "problem",
        answer: str | None = "answer",
        source: str = "source",
        level: str = "level",
        turns: str = "turns",
        problem_rule: ProblemRule | None = None,
        answer_rule: AnswerRule = "field",
        **options: Any,
    ) -> Curriculum:
        """From a `datasets` table, a data frame, an Arrow table, or a mapping of columns; most others are column names.

        Without `id`, prompts are named by the content of problem, what was said before it, and answer, cleaned as the
        pipeline cleans them. The rules are those of `data.problem_rule` and `data.answer_rule`; without the first, text
        is text and a list of messages a chat, whose last user message is the problem.
        """
        prompts, rows = tables.from_table(
            table, id=id, problem=problem, answer=answer, source=source, level=level,
            turns=turns, problem_rule=problem_rule, answer_rule=answer_rule,
        )  # fmt: skip
        return cls(prompts, config, rows=rows, **options)

    @classmethod
    def from_parquet(cls, path: str | Path, config: CurriculumConfig | None = None, **options: Any) -> Curriculum:
        """From a prompt set of the pipeline (`cures data import` writes them)."""
        return cls(PromptSet.read_parquet(Path(path)), config, **options)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def posterior(self) -> Posterior:
        """What is believed of every prompt, rows in order of id; with all that was told, but for a round that is not
        complete."""
        self._settle()
        return self._strategy.posterior

    @property
    def matched(self) -> dict[str, int]:
        """What became of the `posterior` that this was made from: prompts that it knew (`kept`), or had in its archive
        (`restored`), those that are `new` to it, and those of it that are not in this set (`archived`)."""
        return dict(self._matched)

    @property
    def step(self) -> int:
        """Number of the step that is going on, from 1."""
        return self._strategy.step

    @property
    def counts(self) -> dict[str, int]:
        """Rollouts so far: asked, and told to be correct, wrong or unknown."""
        return dict(self._counts)

    @property
    def open(self) -> list[Ask]:
        """What was asked and is still to be told, deferred asks first, in the order of asking."""
        return self._asks([q for q in (self._late | self._round).values() if q.id not in self._outcomes])

    def ask(self, budget: int | None = None) -> list[Ask]:
        """What to roll out next: one ask a prompt, within the step's budget, or within less. May be empty.

        Raises `CurriculumMisuse` where asks of this step are still to be told.
        """
        self._settle()
        requests = self._strategy.ask(self._strategy.rollouts_per_step if budget is None else budget)
        self._round = {q.id: q for q in requests}
        self._counts["asked"] += sum(q.n for q in requests)
        return self._asks(requests)

    def tell(
        self,
        request_id: str,
        rewards: Iterable[float | None] | None = None,
        *,
        correct: int = 0,
        wrong: int = 0,
        unknown: int = 0,
    ) -> None:
        """Say what came of a request: by rewards (correct from `threshold` on), or by counts.

        None and NaN are rollouts without a verdict: unknown, which is counted and enters nothing else. So are rollouts
        that are not told of, because the trainer has dropped them. Raises `CurriculumMisuse`, and leaves everything as
        it was, for a request that was not asked or was told before, for more rollouts than were asked, and for a
        reward that is not a finite number.
        """
        request = self._round.get(request_id) or self._late.get(request_id)
        if request is None or request_id in self._outcomes:
            raise CurriculumMisuse(f"request {request_id} was not asked for, or was told before; nothing was counted")
        if rewards is not None and (correct or wrong or unknown):
            raise CurriculumMisuse(f"request {request_id}: told both by rewards and by counts; nothing was counted")
        if min(correct, wrong, unknown) < 0:
            raise CurriculumMisuse(f"request {request_id}: told negative counts; nothing was counted")
        if rewards is not None:
            correct, wrong, unknown = self._judged(request_id, rewards)
        total = correct + wrong + unknown
        if total > request.n:
            raise CurriculumMisuse(
                f"request {request_id} asked for {request.n} rollouts and was told {total}; nothing was counted"
            )
        outcomes = (correct, wrong, unknown + request.n - total)
        self._outcomes[request_id] = outcomes
        for outcome, count in zip(Outcome, outcomes, strict=True):
            self._counts[outcome.value] += count

    def ready(self) -> Step | None:
        """The step, which is over then, or None if asks are still to be told or another `ask` is wanted."""
        self._settle()
        batch = self._strategy.ready()
        if batch is None:
            return None
        return self._step([g.request for g in batch.groups], batch.reason, batch.figures)

    def defer(self) -> Step:
        """Close the step now. Its open asks may be told in any later step, and count when they are told.

        The step's prompts are those of the last ask. Raises `CurriculumMisuse` before an `ask`.
        """
        self._settle()
        batch = self._strategy.defer()
        self._late |= self._round
        requests, self._round = list(self._round.values()), {}
        return self._step(requests, batch.reason, batch.figures)

    def state_dict(self) -> dict[str, Any]:
        """Everything, as nested dictionaries of JSON values and numpy arrays; a copy. Deferred asks are part of it.

        Raises `CurriculumMisuse` within a step: save after `ready` has returned it, or `defer` it.
        """
        self._settle()
        return {"format": _FORMAT, "counts": self.counts, "strategy": self._strategy.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on as if never stopped; a step that is going on here is given up.

        Raises `ConfigError` for the state of another strategy or another prompt set.
        """
        if not isinstance(state, Mapping) or state.get("format") != _FORMAT or "strategy" not in state:
            raise ConfigError(f"this is no state of a curriculum of format {_FORMAT}: take what state_dict() gave")
        try:
            counts = {name: int(state["counts"][name]) for name in self._counts}
            self._strategy.load_state_dict(state["strategy"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"the curriculum's state is incomplete ({error!r}): take an earlier one") from error
        self._counts = counts
        self._round, self._outcomes = {}, {}
        self._late = {q.id: q for q in self._strategy.deferred}

    def save(self, path: str | Path) -> None:
        """Write `state_dict()` to one safetensors file, whole or not at all."""
        save_state(self.state_dict(), Path(path))

    def load(self, path: str | Path) -> None:
        """Go on from what `save` wrote. Raises `MissingInput`, `CorruptArtifact`, and what `load_state_dict` does."""
        self.load_state_dict(load_state(Path(path)))

    def _settle(self) -> None:
        """Hand what was told to the strategy: a round when it is complete, in the order of asking."""
        complete = self._round and all(name in self._outcomes for name in self._round)
        known = [name for name in self._late if name in self._outcomes] + (list(self._round) if complete else [])
        if not known:
            return
        every = self._late | self._round
        self._strategy.tell([_CountedGroup(every[name], *self._outcomes.pop(name)) for name in known])
        for name in known:
            self._late.pop(name, None)
        if complete:
            self._round = {}

    def _judged(self, request_id: str, rewards: Iterable[float | None]) -> tuple[int, int, int]:
        """(correct, wrong, unknown) of these rewards."""
        counts = [0, 0, 0]
        for i, reward in enumerate(rewards.tolist() if hasattr(rewards, "tolist") else rewards):
            value = reward if type(reward) is float else _number(reward)
            if value is None or abs(value) == math.inf:
                raise CurriculumMisuse(
                    f"request {request_id}, rollout {i}: the reward {reward!r} is not a finite number; tell None where "
                    "there is no verdict. Nothing was counted"
                )
            counts[2 if value != value else value < self.threshold] += 1
        return counts[0], counts[1], counts[2]

    def _asks(self, requests: Sequence[Request]) -> list[Ask]:
        rows = self._rows_of(requests)
        return [Ask(q.id, q.prompt.id, row, q.n, q.seed) for q, row in zip(requests, rows, strict=True)]

    def _step(self, requests: Sequence[Request], reason: str, figures: Mapping[str, float]) -> Step:
        return Step(tuple(q.prompt.id for q in requests), tuple(self._rows_of(requests)), reason, figures)

    def _rows_of(self, requests: Sequence[Request]) -> list[int]:
        found = self._strategy.posterior.rows([q.prompt.id for q in requests])
        return [int(row) for row in self._rows[found]]


def _number(reward: Any) -> float | None:
    """A reward as a float, NaN for None; None where it is no number. Scalars of numpy and torch are numbers."""
    if reward is None:
        return math.nan
    scalar = reward.item() if getattr(reward, "ndim", None) == 0 else reward
    try:
        return float(scalar) if isinstance(scalar, Real) else None
    except OverflowError:
        return math.inf


def _start(earlier: Posterior | None, prompts: PromptSet, config: CurriculumConfig) -> tuple[Posterior, dict[str, int]]:
    """(what a curriculum begins from, what of it was known)."""
    if earlier is None or not len(prompts):
        return Posterior.fresh(prompts, config.posterior), {
            "kept": 0,
            "restored": 0,
            "new": len(prompts),
            "archived": 0,
        }
    posterior, moved = migrate(earlier, prompts, config.posterior)
    if not moved["kept"] + moved["restored"]:
        raise ConfigError(
            f"the posterior of {len(earlier):,} prompts knows none of these {len(prompts):,}: it is of another set, or "
            "its prompts are named otherwise (by content, or by a column of ids)"
        )
    return posterior, moved
