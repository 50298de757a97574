"""The rollout engine's interface: requests in, rollouts with log-probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from cures_core.config.rollout import RolloutConfig
from cures_core.terms import Request, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@runtime_checkable
class RolloutEngine(Protocol):
    """Same policy, prompt id, rollout index and seed give the same tokens, whatever else is in the call."""

    @property
    def cfg(self) -> RolloutConfig:
        """What it samples by."""
        ...

    def generate(
        self, requests: Sequence[Request], *, progress: Callable[[int, int], None] | None = None
    ) -> list[list[Rollout]]:
        """One list of `request.n` rollouts for every request, in order. `progress(done, total)` counts rollouts."""
        ...

    def sync(self, model: PreTrainedModel) -> None:
        """Take the trainer's current weights (a `transformers` causal LM). Called after every update."""
        ...

    def sleep(self) -> None:
        """The trainer is about to update: give back the device memory that it can use. The next call wakes up."""
        ...

    def retune(self, cfg: RolloutConfig) -> None:
        """Sample as `cfg` says from now on. Raises `ConfigError` for what only a new engine can change."""
        ...

    def close(self) -> None: ...
