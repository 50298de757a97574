"""Which policy is trained: a small one made by a warm start, or a pretrained one from a folder or a hub."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from cures_core.config.base import Seed, Strict
from cures_core.config.marks import Operation, Placement, Result
from cures_core.config.urls import HubPath
from cures_core.names import check_revision


class WarmStartPolicy(Strict):
    """A small character-level causal LM, taught from scratch by a fallible tutor (`cures_core.builtin.chains`)."""

    type: Literal["warm-start"] = "warm-start"
    hidden_size: Result[int] = Field(default=96, ge=16, le=4096)
    """Width of the residual stream."""
    layers: Result[int] = Field(default=3, ge=1, le=64)
    """Number of decoder layers."""
    heads: Result[int] = Field(default=4, ge=1, le=64)
    """Number of attention heads; must divide `hidden_size`."""
    steps: Result[int] = Field(default=1400, ge=1)
    """Optimizer steps of the warm start."""
    batch: Result[int] = Field(default=128, ge=1)
    """Demonstrations per step."""
    learning_rate: Result[float] = Field(default=3e-3, gt=0)
    """Peak AdamW learning rate; linear warm-up over the first 50 steps, then linear decay to a tenth."""
    seed: Result[Seed] = 0
    """Seed of the initial weights and of the demonstrations."""
    checkpoint_every: Operation[int] = Field(default=200, ge=1)
    """Steps between in-stage checkpoints: what a killed warm start loses at most."""


class PretrainedPolicy(Strict):
    """A `transformers` causal LM with its tokenizer."""

    type: Literal["pretrained"] = "pretrained"
    path: Placement[HubPath]
    """A local folder in Hugging Face format, or a hub id (then `revision` should be a commit). Keys hold the content of
    its files, not the name."""
    revision: Placement[Annotated[str, AfterValidator(check_revision)] | None] = None
    """Hub revision; None means the hub's default branch and is only right for local folders."""
    dtype: Result[Literal["float32", "bfloat16"]] = "float32"
    """Type of the weights during training and generation. Its precision is part of every figure."""


def dtype_of(cfg: WarmStartPolicy | PretrainedPolicy) -> str:
    """Type of the policy's weights in training and generation."""
    return cfg.dtype if isinstance(cfg, PretrainedPolicy) else "float32"


PolicyConfig = Annotated[WarmStartPolicy | PretrainedPolicy, Field(discriminator="type")]
