"""Memory of one rank's device, from the sizes of the policy and the configuration. All figures are bytes.

Left out: what the driver and the libraries hold (about 1 GiB on CUDA) and fragmentation.
"""

from __future__ import annotations

from dataclasses import dataclass

from cures_core.config.device import DeviceConfig
from cures_core.config.rollout import AnyVllmConfig, HfRolloutConfig, RolloutConfig, VllmServerRolloutConfig
from cures_core.config.run import RunConfig
from cures_core.config.training import DeepSpeedTrainerConfig, RanksConfig, TrainingConfig
from cures_core.planning.shape import Shape

_FLOAT32 = 4
_ZERO_BUCKET = 500_000_000  # elements that DeepSpeed sums up at once, its default


@dataclass(frozen=True)
class Memory:
    """Parts on a rank's device, and on the host where parts are moved there. An update and the rollouts before it do
    not need theirs at the same time: `peak` is the larger of the two."""

    weights: int
    masters: int
    gradients: int
    optimizer: int
    reference: int
    activations: int
    logits: int
    buffers: int
    generation: int
    """Rollouts: key-value cache, and what the engine has of its own."""
    resting: int
    """What the engine keeps while the trainer updates."""
    whole: int
    """A whole copy of the weights for rollouts, where ranks train with a share of them."""
    host: int

    @property
    def update(self) -> int:
        step = self.gradients + self.activations + self.logits + self.buffers + self.resting
        return self._kept + step

    @property
    def rollouts(self) -> int:
        return self._kept + self.generation + self.whole

    @property
    def peak(self) -> int:
        return max(self.update, self.rollouts)

    @property
    def _kept(self) -> int:
        return self.weights + self.masters + self.optimizer + self.reference


def memory(cfg: RunConfig, shape: Shape, longest: int) -> Memory:
    """For sequences of at most `longest` tokens, prompt and completion together."""
    training = cfg.training
    size = 2 if cfg.policy.type == "pretrained" and cfg.policy.dtype == "bfloat16" else _FLOAT32
    ranks = training.processes * training.nodes if isinstance(training, RanksConfig) else 1
    stage = training.zero_stage if isinstance(training, DeepSpeedTrainerConfig) else 0
    with_masters = size < _FLOAT32 and (isinstance(training, DeepSpeedTrainerConfig) or training.master_weights)
    adapters = shape.trained if training.lora is not None else 0
    every = (shape.parameters + adapters) * size
    updated = _FLOAT32 if with_masters else size  # bytes of a weight as the optimizer sees it
    summed = size if stage == 1 else updated
    masters = shape.trained * _FLOAT32 * with_masters // (ranks if stage >= 1 else 1)
    optimizer = 2 * shape.trained * updated // (ranks if stage >= 1 else 1)
    weights = every // (ranks if stage == 3 else 1)
    host = 0
    if isinstance(training, DeepSpeedTrainerConfig) and training.offload_optimizer:
        host, masters, optimizer = host + masters + optimizer, 0, 0
    if isinstance(training, DeepSpeedTrainerConfig) and training.offload_parameters:
        host, weights = host + weights, 0
    rollouts = -(-cfg.curriculum.rollouts_per_step // ranks)
    # Tokens of the largest micro-batch: the budget, unless a rank's share is smaller or one rollout longer.
    columns = min(max(training.micro_batch_tokens, longest), rollouts * longest)
    scored = min(columns, rollouts * cfg.rollout.max_new_tokens)  # prompts' logits are never made
    engine, resting = _engine(cfg.rollout, shape, size, longest, shape.parameters * size, on_gpu=_on_gpu(cfg.device))
    return Memory(
        weights=weights,
        masters=masters,
        gradients=shape.trained * summed // (ranks if stage >= 2 else 1),
        optimizer=optimizer,
        reference=shape.parameters * size if training.kl_coef and training.lora is None else 0,
        activations=columns * activation_bytes(shape, size, training),
        logits=2 * scored * shape.vocabulary * size,  # and their gradient
        buffers=min(shape.trained, _ZERO_BUCKET) * summed if stage >= 2 else 0,
        generation=engine,
        resting=resting,
        whole=every if stage == 3 else 0,
        host=host,
    )


def activation_bytes(shape: Shape, size: int, training: TrainingConfig) -> int:
    """What one token's forward pass keeps for the backward pass, all layers, attention without its matrix."""
    h, f = shape.hidden, shape.feed_forward
    # In a layer with a gate: inputs of the linear layers, q, k and v spread over the heads, attention's output twice;
    # the gate, its activation, the other half and their product; two norms, in float32 and rounded.
    gated = size * (7 * h + 4 * f) + 2 * (_FLOAT32 + size) * h
    layer = gated if shape.gated else size * (9 * h + (5 if shape.stepwise else 2) * f)
    if training.gradient_checkpointing:
        return shape.layers * size * h + layer
    return shape.layers * layer


def cache_bytes(shape: Shape, size: int) -> int:
    """Keys and values of one token."""
    return 2 * shape.layers * shape.keys * size


def _on_gpu(cfg: DeviceConfig) -> bool:
    import torch

    return cfg.type == "cuda" or (cfg.type == "auto" and torch.cuda.is_available())


def _engine(
    cfg: RolloutConfig, shape: Shape, size: int, longest: int, weights: int, *, on_gpu: bool
) -> tuple[int, int]:
    """(while it generates, while the trainer updates)."""
    if isinstance(cfg, HfRolloutConfig):
        logits = cfg.batch_rows * shape.vocabulary * (size + 2 * _FLOAT32)
        needs = cfg.batch_rows * longest * cache_bytes(shape, size) + logits
        # What steps were captured on stays where it is (more than an eighth of the device's memory does not).
        return needs, needs if on_gpu and cfg.decoding != "eager" else 0
    assert isinstance(cfg, AnyVllmConfig)
    if isinstance(cfg, VllmServerRolloutConfig) and cfg.endpoints:
        return 0, 0
    needs = weights + cfg.kv_cache_gib * 2**30
    return needs, 0 if cfg.sleep_level else needs
