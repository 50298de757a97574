"""Ask and tell: the one interface between the training loop and every curriculum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from cures_core.terms import Group, Request


@dataclass(frozen=True, slots=True)
class Batch:
    """What a step trains on: groups with signal first come as told; groups without signal are counted, not dropped.

    `groups` holds every group told in this step that the strategy wants in the loss; `reason` is why the step closed
    ("complete", or "budget spent: 11 of 16 informative groups"); `figures` are the step's curriculum metrics (effective
    sample size, max/min weight, informative share, calibration ...), plain numbers, deterministic.
    """

    groups: Sequence[Group]
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class AskTell(Protocol):
    """Order of calls in one step, repeated for ever:

    `ready()` is None -> `ask(budget)` -> `tell(groups)` -> `ready()` ... until `ready()` returns the step's batch,
    which also closes the step. `budget` is the number of rollouts left in this step. An `ask` may return no requests:
    then `ready()` returns what there is. Every request is told exactly once; unknown or repeated ids raise
    `CurriculumMisuse` before any state is touched. All randomness comes from a generator that is part of the state.
    """

    @property
    def rollouts_per_step(self) -> int:
        """The step's budget."""
        ...

    def ask(self, budget: int) -> list[Request]: ...

    def tell(self, groups: Sequence[Group]) -> None: ...

    def ready(self) -> Batch | None: ...

    def state_dict(self) -> dict[str, Any]:
        """JSON values and numpy arrays only (nested dicts allowed); a copy, safe to keep."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore; refuses (ConfigError) a state made by another strategy type or another prompt set."""
        ...
