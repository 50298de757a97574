"""How the first posterior comes about: which prompts are rolled out before training, and what that may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cures_core.config.base import Strict
from cures_core.config.marks import Operation, Result


class _Prior(Strict):
    start_from: Result[str | None] = Field(default=None, pattern=r"^posterior/[a-z0-9][a-z0-9.-]*/[0-9]+$")
    """Tag of an earlier run's posterior snapshot (`posterior/RUN/EPOCH`): prompts of equal content keep its evidence,
    and only new and edited ones are rolled out. Evidence of a trained policy misleads a run that starts from the base
    one; epoch 0 is the base policy's. None: nothing is known. A tag names one content for ever."""


class _RolledOut(_Prior):
    features: Result[bool] = True
    """Predict prompts that were not rolled out from their features (length, labels, n-grams), where cross-validation
    finds that better than the rate of their group. Fitted from 50 rolled out prompts on."""


class NoPrior(_Prior):
    """No rollouts: every prompt starts from the pooled prior; training's own rollouts are the evidence."""

    type: Literal["none"] = "none"


class SamplePrior(_RolledOut):
    """Roll out a sample stratified by group (source x level): the groups' pass rates are pooled."""

    type: Literal["sample"] = "sample"
    budget: Result[int] = Field(default=256, ge=1)
    """Rollouts to spend in all."""
    rollouts_per_prompt: Result[int] = Field(default=2, ge=1)
    """Rollouts of each sampled prompt."""
    chunk_prompts: Operation[int] = Field(default=64, ge=1)
    """Prompts per saved chunk: what a killed estimation loses at most."""


class FullPrior(_RolledOut):
    """Roll out every prompt that has no usable posterior (the paper's protocol: four rollouts each)."""

    type: Literal["full"] = "full"
    rollouts_per_prompt: Result[int] = Field(default=4, ge=1)
    """Rollouts of each prompt."""
    chunk_prompts: Operation[int] = Field(default=64, ge=1)
    """Prompts per saved chunk: what a killed estimation loses at most."""


PriorConfig = Annotated[NoPrior | SamplePrior | FullPrior, Field(discriminator="type")]
