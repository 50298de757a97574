"""The trainer's interface: one batch of groups in, one optimizer step, figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from cures_core.terms import Group, Moments


@runtime_checkable
class PolicyTrainer(Protocol):
    """Owns the policy's weights and the optimizer. Deterministic for the same state and batch on CPU."""

    @property
    def model(self) -> Any:
        """The `transformers` causal LM (or its peft wrapper) with the current weights."""
        ...

    @property
    def moments(self) -> Mapping[str, Moments]:
        """Of the last update's scores, by prompt id; empty where nothing was measured."""
        ...

    def update(self, groups: Sequence[Group]) -> Mapping[str, float]:
        """One step on the groups. Without any non-zero advantage nothing changes and `updated` is 0.

        Raises `TrainingDiverged` after too many consecutive steps with a non-finite loss or gradient.
        """
        ...

    def state_dict(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """(weights, optimizer tensors, JSON state)."""
        ...

    def load_state_dict(self, weights: dict[str, Any], optimizer: dict[str, Any], state: Mapping[str, Any]) -> None: ...
