"""What the loop asks of a trainer: one batch of groups in, one optimizer step, figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from cures_core.terms import Group

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@runtime_checkable
class PolicyTrainer(Protocol):
    """Owns the policy's weights and the optimizer. Deterministic for the same state and batch on CPU."""

    @property
    def model(self) -> PreTrainedModel:
        """The `transformers` causal LM (or its peft wrapper) with the current weights."""
        ...

    def update(self, groups: Sequence[Group]) -> Mapping[str, float]:
        """One step on the groups. Without any non-zero advantage nothing changes and `updated` is 0.

        Raises `TrainingDiverged` after too many consecutive steps with a non-finite loss or gradient.
        """
        ...
