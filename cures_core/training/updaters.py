"""From the gradients of micro-batches to one update of the weights, the same on every rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from cures_core.config.training import TorchrunTrainerConfig, TorchTrainerConfig, TrainingConfig
from cures_core.distributed import World
from cures_core.errors import ConfigError
from cures_core.policy.loading import Policy
from cures_core.training.optimizer_state import load_optimizer, optimizer_tensors

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_BUCKET_ELEMENTS = 1 << 24  # summed over the ranks at once
MASTER = "master"


class Updater(Protocol):
    """Owns weights and optimizer. Gradients of all ranks are summed: the loss is weighted over the whole batch."""

    lockstep: bool
    """Every rank has to make the same number of backward passes, and cannot repeat one."""

    @property
    def forward(self) -> torch.nn.Module:
        """What the forward pass of training calls."""
        ...

    @property
    def model(self) -> PreTrainedModel:
        """A model with whole current weights, for generation."""
        ...

    def reset(self) -> None:
        """Forget gradients."""
        ...

    def prepare(self, *, last: bool) -> None:
        """Called before each forward pass; `last` of the step."""
        ...

    def backward(self, loss: torch.Tensor) -> None: ...

    def step(self, rate: float, loss: float) -> tuple[float, bool]:
        """(global gradient norm before clipping, whether the weights were updated). Not finite: no update."""
        ...

    def weights(self) -> dict[str, torch.Tensor]:
        """Whole trainable tensors by name. All ranks call it together."""
        ...

    def tensors(self) -> dict[str, torch.Tensor]:
        """Whole optimizer tensors, `<parameter index>.<moment>`. All ranks call it together."""
        ...

    def load(self, weights: Iterable[tuple[str, torch.Tensor]], tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Restore what `weights` and `tensors` returned, from any trainer at any number of ranks."""
        ...


class AdamW:
    """See `Updater`: torch's AdamW with the whole policy on every rank.

    Parameters in bfloat16 have masters in float32 (if configured): gradients are added up and applied there.
    """

    lockstep = False

    def __init__(self, policy: Policy, cfg: TorchTrainerConfig | TorchrunTrainerConfig, world: World) -> None:
        import torch

        self._policy, self._world = policy, world
        self._limit = cfg.grad_clip or math.inf
        self._parameters = list(policy.trainable().values())
        self._masters: list[torch.Tensor] = []
        if cfg.master_weights and any(p.dtype != torch.float32 for p in self._parameters):
            self._masters = [p.detach().float() for p in self._parameters]
            for parameter, master in zip(self._parameters, self._masters, strict=True):
                parameter.register_post_accumulate_grad_hook(_adder(master))
        self._stepped = self._masters or self._parameters
        self._optimizer = torch.optim.AdamW(
            self._stepped, lr=cfg.learning_rate, betas=cfg.betas, weight_decay=cfg.weight_decay
        )

    @property
    def forward(self) -> torch.nn.Module:
        return self._policy.model

    @property
    def model(self) -> PreTrainedModel:
        return self._policy.model

    def reset(self) -> None:
        for tensor in (*self._parameters, *self._masters):
            tensor.grad = None

    def prepare(self, *, last: bool) -> None:
        """Nothing depends on it."""

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def step(self, rate: float, loss: float) -> tuple[float, bool]:
        import torch

        if self._world.size > 1:
            sum_gradients(self._stepped, self._world)
        norm = float(torch.nn.utils.clip_grad_norm_(self._stepped, self._limit))
        updated = math.isfinite(norm) and math.isfinite(loss)
        if updated:
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.step()
            self._publish()
        self.reset()
        return norm, updated

    def weights(self) -> dict[str, torch.Tensor]:
        return dict(self._policy.trainable())

    def tensors(self) -> dict[str, torch.Tensor]:
        masters = {f"{i}.{MASTER}": master for i, master in enumerate(self._masters)}
        return {**optimizer_tensors(self._optimizer), **masters}

    def load(self, weights: Iterable[tuple[str, torch.Tensor]], tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        import torch

        self._policy.load_trainable(dict(weights))
        found = dict(tensors)
        masters = [found.pop(f"{i}.{MASTER}", None) for i in range(len(self._parameters))]
        load_optimizer(self._optimizer, found)
        with torch.no_grad():
            for master, saved, parameter in zip(self._masters, masters, self._parameters, strict=False):
                master.copy_(parameter if saved is None else saved)

    def _publish(self) -> None:
        """Masters, rounded, are the policy's weights."""
        import torch

        with torch.no_grad():
            for parameter, master in zip(self._parameters, self._masters, strict=False):
                parameter.copy_(master)


def _adder(master: torch.Tensor) -> Callable[[torch.Tensor], None]:
    """Moves a parameter's gradient of one micro-batch to its master."""

    def add(parameter: torch.Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None  # the hook runs when it has been added up
        master.grad = gradient.float() if master.grad is None else master.grad.add_(gradient)

    return add


def sum_gradients(parameters: Sequence[torch.Tensor], world: World) -> None:
    """Replace every gradient by its sum over the ranks; a rank that had nothing to do adds zeros."""
    import torch

    bucket: list[torch.Tensor] = []
    for i, parameter in enumerate(parameters):
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        bucket.append(parameter.grad)
        if i + 1 == len(parameters) or sum(g.numel() for g in bucket) >= _BUCKET_ELEMENTS:
            flat = world.sum_(torch.cat([g.flatten() for g in bucket]), "the gradients of the step")
            for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view_as(gradient))
            bucket = []


def build_updater(policy: Policy, cfg: TrainingConfig, world: World) -> Updater:
    """The updater of `cfg.type`."""
    if cfg.type == "deepspeed":
        from cures_core.training.zero import Zero

        return Zero(policy, cfg, world)
    if cfg.type == "torch" and world.size > 1:
        raise ConfigError("training.type = 'torch' is one process")
    return AdamW(policy, cfg, world)
