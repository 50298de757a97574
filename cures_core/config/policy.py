"""Which policy is trained: a small one made by a warm start, or a pretrained one from a folder or a hub."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cures_core.config.base import Seed, Strict
from cures_core.config.marks import Later, Operation, Placement, Result
from cures_core.config.training import LoraConfig
from cures_core.config.urls import HubPath, S3Url
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


SOLUTION = "{solution}"


class SupervisedWarmStart(Strict):
    """What a pretrained policy is taught before anything is rolled out: worked solutions, told as rollouts are asked
    for (`rollout.prompt_format`). AdamW on the completions' tokens, on one device."""

    path: Placement[S3Url | None] = None
    """Rows with problems and worked solutions, named as `data.path` is. None: those of the prompt set itself."""
    format: Result[Literal["auto", "jsonl", "json", "csv", "parquet", "arrow"]] = "auto"
    """As `data.format`."""
    problem: Result[str | None] = None
    """Column of the problems; a list of chat messages is a problem with its earlier turns. None: the usual names."""
    solution: Result[str | None] = None
    """Column of the worked solutions; where it holds a list of chat messages, what the assistant says at its end. None:
    solution, else answer."""
    template: Result[str] = SOLUTION
    """Text with one `{solution}`, which is replaced by the solution: the whole completion, but for the end token."""
    max_rows: Result[int | None] = Field(default=None, ge=1)
    """Most rows that are taken, drawn by `seed`. None: all of them."""
    max_tokens: Result[int] = Field(default=2048, ge=2)
    """Most tokens of problem and solution together; longer rows are left out, and counted."""
    max_reject_share: Result[float] = Field(default=0.05, ge=0, le=1)
    """Largest share of rows that may be left out as empty, too long or unfit. Above it nothing is taught."""
    epochs: Result[int] = Field(default=1, ge=1)
    """Passes over the rows, in another order each."""
    batch_tokens: Result[int] = Field(default=8192, ge=2)
    """Tokens of problems and solutions in one optimizer step, at most; a longer row makes a step of its own."""
    learning_rate: Result[float] = Field(default=1e-5, gt=0)
    """Peak learning rate; linear warm-up over the first tenth of the steps, then linear decay to a tenth."""
    weight_decay: Result[float] = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    lora: LoraConfig | None = None
    """Adapters, merged when all is taught; None teaches all weights."""
    seed: Result[Seed] = 0
    """Seed of the order of rows and of the adapters."""
    micro_batch_tokens: Operation[int] = Field(default=8192, ge=64)
    """As `training.micro_batch_tokens`."""
    checkpoint_every: Operation[int] = Field(default=50, ge=1)
    """Steps between in-stage checkpoints: what a killed warm start loses at most."""

    @model_validator(mode="after")
    def _template_holds_the_solution(self) -> Self:
        if (found := self.template.count(SOLUTION)) != 1:
            raise ValueError(f"template holds {SOLUTION} {found} times: write it exactly once")
        return self


class PretrainedPolicy(Strict):
    """A `transformers` causal LM with its tokenizer."""

    type: Literal["pretrained"] = "pretrained"
    path: Placement[HubPath]
    """A local folder in Hugging Face format, or a hub id (then `revision` should be a commit). Keys hold the content of
    its files, not the name. A folder of LoRA adapters (peft) stands for them on their base model."""
    adapters: Annotated[Result[Literal["merge", "continue"]], Later("merge")] = "merge"
    """What becomes of adapters in `path`. `merge`: they are added to the weights of their base model, once, and what
    comes of it is the base policy. `continue`: they are trained further; `training.lora` says what they are like."""
    base: Placement[HubPath | None] = None
    """Folder or hub id of the model that the adapters in `path` belong to. None: as their adapter_config.json says."""
    revision: Placement[Annotated[HubPath, AfterValidator(check_revision)] | None] = None
    """Hub revision; None means the hub's default branch and is only right for local folders."""
    dtype: Result[Literal["float32", "bfloat16"]] = "float32"
    """Type of the weights during training and generation. Its precision is part of every figure."""
    warm_start: Annotated[SupervisedWarmStart | None, Later()] = None
    """Worked solutions to learn from first (supervised fine-tuning). None: the policy is trained as it is."""

    @model_validator(mode="after")
    def _a_warm_start_begins_with_whole_weights(self) -> Self:
        if self.warm_start is not None and self.adapters == "continue":
            raise ValueError(
                "warm_start makes whole weights, which leaves no adapters to continue: set adapters = 'merge'"
            )
        return self


def dtype_of(cfg: WarmStartPolicy | PretrainedPolicy) -> str:
    """Type of the policy's weights in training and generation."""
    return cfg.dtype if isinstance(cfg, PretrainedPolicy) else "float32"


PolicyConfig = Annotated[WarmStartPolicy | PretrainedPolicy, Field(discriminator="type")]
