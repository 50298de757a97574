"""Which rollouts of training are kept with their texts, so that people can read them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cures_core.config.base import Strict
from cures_core.config.marks import Operation

PromptName = Annotated[str, Field(pattern=r"^[0-9a-f]{8,32}$")]
"""A prompt's content id, or a beginning of it."""


class KeptRolloutsConfig(Strict):
    """What an epoch keeps in `rollouts.parquet`. No number of a run depends on it: the choice is a hash, not a draw."""

    share: Operation[float] = Field(default=0.05, ge=0, le=1)
    """Share of the rollouts, by whole groups: half of it the same prompts in every step, half other ones each time."""
    prompts: Operation[tuple[PromptName, ...]] = ()
    """Content ids of prompts, or beginnings of 8 digits and more, of which every rollout is kept, whatever `per_step`
    is above 0."""
    per_step: Operation[int] = Field(default=32, ge=0)
    """Most rollouts of a step beside those of `prompts`; 0 keeps none at all. Half of it is for those without a
    verdict, then those of prompts that look wrong (answer disputed, never a verdict); the rest for the share, its
    lasting prompts first. What one half leaves free is the other's."""
    max_text_bytes: Operation[int] = Field(default=8192, ge=64)
    """Longest problem or completion, in UTF-8: longer ones lose their middle."""
    max_epoch_mib: Operation[float] = Field(default=16.0, gt=0)
    """Most MiB of an epoch, before compression; what comes later is left out and counted."""

    @property
    def epoch_bytes(self) -> int:
        return int(self.max_epoch_mib * 2**20)
