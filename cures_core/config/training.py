"""How the policy is updated: optimizer, advantage, loss weight, adapters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cures_core.config.base import Strict
from cures_core.config.marks import Later, Operation, Placement, Result, Settled
from cures_core.config.retired import without_retired
from cures_core.config.urls import ClusterUrl

STATE = "the optimizer's state would not fit"
"""Why a setting cannot change while a run goes on."""
RECIPES: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr-grpo": {"advantage": "dr-grpo", "loss_weight": "rollout"},
    "dapo": {"loss_weight": "token", "clip_high": 0.28},
    "reinforce++": {"advantage": "reinforce++", "loss_weight": "token"},
    "reinforce++-baseline": {"advantage": "reinforce++-baseline", "loss_weight": "token"},
    "rloo": {"advantage": "loo", "loss_weight": "rollout", "ratio": "sequence", "length_norm": 1.0},
}


class LoraConfig(Strict):
    """Low-rank adapters (peft) instead of full fine-tuning."""

    rank: Result[int] = Field(default=16, ge=1)
    """Rank of the update."""
    alpha: Result[int] = Field(default=32, ge=1)
    """Scale of the update: alpha / rank."""
    targets: Result[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that get an adapter."""


class OverlongPenalty(Strict):
    """Soft overlong punishment (DAPO, arXiv 2503.14476, eq. 13): nothing up to `buffer_tokens` before
    `rollout.max_new_tokens`, from there on linearly more, all of `penalty` at the limit and for what is cut off."""

    buffer_tokens: Result[int] = Field(ge=1)
    """Length of the slope, in tokens."""
    penalty: Result[float] = Field(default=1.0, gt=0, le=1000)
    """What is taken off the reward at most. Rewards are 1 for correct and 0 for wrong: the paper's, 1 and -1 with a
    penalty of 1, are as 0.5 here."""


class TrainerOptions(Strict):
    """What all trainers have in common: AdamW on the groups of a step."""

    loss: Annotated[
        Result[Literal["grpo", "dr-grpo", "dapo", "reinforce++", "reinforce++-baseline", "rloo"]],
        Settled("it is a short name: set what it stands for (advantage, loss_weight, clip_high ...)"),
    ] = "grpo"
    """A published loss: sets `advantage`, `loss_weight`, `ratio`, `clip_high` and `length_norm` where the profile does
    not. `dr-grpo` divides by a constant and needs `length_norm` (the paper's: `rollout.max_new_tokens`)."""
    learning_rate: Result[float] = Field(gt=0)
    """AdamW learning rate, constant after warm-up."""
    warmup_steps: Result[int] = Field(default=0, ge=0)
    """Steps of linear learning-rate warm-up at the start of the run."""
    betas: Result[tuple[float, float]] = (0.9, 0.95)
    """AdamW's beta1 and beta2: decay of the first and of the second moment, per step."""
    weight_decay: Result[float] = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    grad_clip: Result[float] = Field(default=1.0, ge=0)
    """Largest global gradient norm; 0 switches clipping off."""
    advantage: Result[Literal["grpo", "dr-grpo", "loo", "reinforce++", "reinforce++-baseline", "posterior"]] = "grpo"
    """`grpo`: (r - group mean) / group std; `dr-grpo`: r - group mean; `loo`: leave-one-out mean as the baseline;
    `reinforce++`: reward normalised over the whole batch (no group baseline); `reinforce++-baseline`: r - group mean,
    normalised over the whole batch; `posterior`: r - the pass rate that the curriculum's posterior expected of the
    prompt, which needs no group (SPO, arXiv 2509.13232): with single rollouts (`curriculum.allocation`) each of them
    teaches."""
    solved_advantage: Result[float] = Field(default=0.0, ge=0)
    """Advantage of the rollouts of a group that is all right, in units of the group's deviation. 0: such a group
    teaches nothing, as in GRPO. Above 0 what is solved is held on to without the luck of a failure in its group: where
    right completions hardly differ, their score is small and the baseline of least variance is near 0, not p."""
    loss_weight: Result[Literal["prompt", "rollout", "token"]] = "prompt"
    """What counts equally in the loss: prompts (mean over a group, then over prompts; what the derivation of CurES
    assumes), rollouts, or tokens."""
    length_norm: Result[float | None] = Field(default=None, gt=0)
    """Divide a rollout's summed log-probability by this many tokens; None divides by the rollout's own length.
    Ignored where `loss_weight` is `token`."""
    clip_low: Result[float] = Field(default=0.2, gt=0, lt=1)
    """The importance ratio is clipped below at 1 - `clip_low`."""
    clip_high: Result[float] = Field(default=0.2, gt=0)
    """The importance ratio is clipped above at 1 + `clip_high`."""
    ratio: Result[Literal["token", "sequence"]] = "token"
    """Importance ratio of each token, or of the whole completion (RLOO)."""
    importance_bound: Result[float] = Field(default=2.0, ge=1)
    """Largest importance weight, trainer's probability over the engine's. `clip_high` does not bound it for completions
    that are discouraged, so an engine that computes otherwise than the trainer could make one token rule the step."""
    kl_coef: Result[float] = Field(default=0.0, ge=0)
    """Weight of the KL divergence from the base policy in the loss. Above 0 rollouts without advantage count in it too,
    and full training keeps a copy of the base policy (adapters are switched off instead)."""
    kl_estimator: Result[Literal["k2", "k3"]] = "k3"
    """Estimator of the divergence: `k3` is GRPO's; `k2` has the divergence's gradient on the policy's own tokens."""
    micro_batch_tokens: Operation[int] = Field(default=16384, ge=64)
    """Tokens, padding included, per forward and backward pass: less takes less memory. The gradient is the same sum in
    another order, so results agree to float tolerance, not in every byte. Halved, for the rest of the run or until it
    is set to another value, up to three times in a step where memory runs out."""
    attention: Operation[Literal["auto", "model", "bounded"]] = "auto"
    """How rollouts that share a row are kept apart. `model`: by the model's own attention, which masks a square of the
    row's width. `bounded`: by attention that is told where each begins, on CUDA torch's variable-length Flash Attention
    (16-bit weights). `auto`: bounded on CUDA where the model can be trained so, else the model's. The same up to
    rounding."""
    gradient_checkpointing: Operation[bool] = False
    """Keep no activations inside a layer and compute them again for the backward pass: less memory, a third more
    time, the same result."""
    max_bad_steps: Operation[int] = Field(default=3, ge=1)
    """Consecutive steps with a non-finite loss or gradient after which the epoch fails. Patience: what an epoch that
    does not fail has computed is the same."""
    truncated: Annotated[Result[Literal["judged", "masked", "wrong"]], Later("judged")] = "judged"
    """What becomes of a completion that ended at the token limit. `judged`: the verifier reads what there is, as of any
    other. `masked`: it is judged, and the posterior hears the verdict, but the loss and its group's baseline leave it
    out (overlong filtering). `wrong`: it is wrong whatever it says, to training, prior and posterior; scores of suites
    judge it. An unknown verdict stays unknown."""
    overlong: Annotated[OverlongPenalty | None, Later()] = None
    """Long completions are paid less; the posterior does not hear of it. None: length costs nothing."""
    entropy_alarm: Operation[float] = Field(default=0.05, ge=0)
    """Entropy over all rollouts of a step, in nats a token, below which every step, the log and the report warn: a
    policy that tries nothing else any more has little left to learn from. 0: no warning."""
    lora: Annotated[LoraConfig | None, Settled("the checkpoint's weights would not fit")] = None
    """Adapters; None trains all weights."""

    @property
    def needs_groups(self) -> bool:
        """Whether the baseline is made of a group's other rollouts, so that a single rollout teaches nothing."""
        return self.advantage not in ("reinforce++", "posterior")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_recipe(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        return {**RECIPES.get(values.get("loss", "grpo"), {}), **values}

    @model_validator(mode="after")
    def _dr_grpo_has_its_constant(self) -> TrainerOptions:
        if self.loss == "dr-grpo" and self.length_norm is None:
            raise ValueError("loss dr-grpo divides by a constant: set length_norm, as a rule to rollout.max_new_tokens")
        return self

    @model_validator(mode="after")
    def _solved_groups_have_a_baseline(self) -> TrainerOptions:
        if self.solved_advantage and not self.needs_groups:
            of = "the batch" if self.advantage == "reinforce++" else "the posterior"
            raise ValueError(f"solved_advantage needs a baseline of the group: `{self.advantage}` has that of {of}")
        return self


class TorchTrainerConfig(TrainerOptions):
    """One process, one device."""

    type: Literal["torch"] = "torch"
    """Trainer name."""
    master_weights: Annotated[Result[bool], Settled(STATE)] = True
    """Where the policy is in bfloat16, keep its weights in float32 beside it, sum gradients in float32 and update
    those: an update smaller than a 256th of a weight is otherwise rounded away. Takes 4 bytes a weight."""


class RanksConfig(Strict):
    """Several processes (ranks), one device each. Rank 0 keeps curriculum and checkpoints; rollouts and loss are shared
    out. The result does not depend on their number beyond float tolerance."""

    processes: Placement[int] = Field(default=1, ge=1)
    """Ranks on each node: as a rule its number of GPUs."""
    nodes: Placement[int] = Field(default=1, ge=1)
    """Machines. Each but the first runs `cures join` (docs/scaling.md)."""
    address: Placement[ClusterUrl] = ""
    """`host:port` of the first node, which the others reach it by. Empty on one node: a free port of the loopback."""
    start_timeout_s: Operation[float] = Field(default=600.0, gt=0)
    """Longest wait for all ranks to be there."""
    wait_timeout_s: Operation[float] = Field(default=1800.0, gt=0)
    """Longest wait of a rank for another one: longer than the slowest part of a step (a rank's share of the rollouts,
    the verdicts, saving a checkpoint)."""

    @model_validator(mode="after")
    def _nodes_know_where_to_meet(self) -> RanksConfig:
        if self.nodes > 1 and not self.address:
            raise ValueError("more than one node needs address = 'host:port', reachable from all of them")
        if self.address:
            host, _, port = self.address.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError(f"address {self.address!r}: write host:port")
        return self


class TorchrunTrainerConfig(TrainerOptions, RanksConfig):
    """Data parallel: every rank holds the whole policy and optimizer."""

    type: Literal["torchrun"] = "torchrun"
    """Trainer name."""
    master_weights: Annotated[Result[bool], Settled(STATE)] = True
    """As with `torch`."""


class DeepSpeedTrainerConfig(TrainerOptions, RanksConfig):
    """DeepSpeed ZeRO: what a rank would hold twice is cut into shares (extra `deepspeed`). Policies in bfloat16 always
    have float32 master weights here."""

    type: Literal["deepspeed"] = "deepspeed"
    """Trainer name."""
    zero_stage: Annotated[Result[Literal[0, 1, 2, 3]], Settled(STATE)] = 2
    """What is shared out: 1 optimizer states, 2 gradients too, 3 weights too; 0 nothing (float32 policies only). For
    policies in bfloat16, 1 adds up the gradients of micro-batches in bfloat16, 2 and 3 in float32."""
    offload_optimizer: Result[bool] = False
    """Optimizer states and their update in the memory and on the processor of the host (`zero_stage` 1 to 3)."""
    offload_parameters: Result[bool] = False
    """Weights in the memory of the host while they are not needed (`zero_stage` 3)."""

    @model_validator(mode="after")
    def _offload_has_its_stage(self) -> DeepSpeedTrainerConfig:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer needs zero_stage 1, 2 or 3")
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError("offload_parameters needs zero_stage = 3")
        return self


def _torch_unless_named(values: object) -> object:
    """Profiles may leave the trainer out."""
    return {"type": "torch", **values} if isinstance(values, dict) else values


TrainingConfig = Annotated[
    TorchTrainerConfig | TorchrunTrainerConfig | DeepSpeedTrainerConfig,
    Field(discriminator="type"),
    BeforeValidator(_torch_unless_named),
    BeforeValidator(without_retired("training")),
]
