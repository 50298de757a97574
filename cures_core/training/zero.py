"""Updates by DeepSpeed ZeRO. Needs the extra `deepspeed` and, for what it compiles at first use, a C++ compiler."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from cures_core.config.training import DeepSpeedTrainerConfig
from cures_core.distributed import World
from cures_core.errors import ConfigError
from cures_core.policy.loading import Policy
from cures_core.training.deepspeed_setup import prepare_deepspeed
from cures_core.training.optimizer_state import load_optimizer, optimizer_tensors
from cures_core.training.updaters import MASTER

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_MOMENTS = ("exp_avg", "exp_avg_sq")


class Zero:
    """See `Updater`. Checkpoints hold whole tensors by the names of the other trainers, whatever is shared out here."""

    lockstep = True

    def __init__(self, policy: Policy, cfg: DeepSpeedTrainerConfig, world: World) -> None:
        import torch

        parameters = policy.trainable()
        low = next(iter(parameters.values())).dtype != torch.float32
        if low and cfg.zero_stage == 0:
            raise ConfigError(
                "training.zero_stage = 0 is for float32 policies: set zero_stage = 1, or type = 'torchrun'"
            )
        deepspeed = prepare_deepspeed(cfg)
        self._policy, self._world, self._deepspeed, self._stage = policy, world, deepspeed, cfg.zero_stage
        self._parameters, self._low = parameters, low
        # Weights that are shared out are no model to generate with: this one is filled after every update.
        # It is copied before `initialize`, which leaves this rank its share of each weight.
        self._whole = copy.deepcopy(policy.model).eval().requires_grad_(False) if cfg.zero_stage == 3 else None
        kind: Any = deepspeed.ops.adam.DeepSpeedCPUAdam if cfg.offload_optimizer else torch.optim.AdamW
        self._optimizer = kind(
            list(parameters.values()), lr=cfg.learning_rate, betas=cfg.betas, weight_decay=cfg.weight_decay
        )
        hidden = int(policy.model.config.get_text_config(decoder=True).hidden_size)
        self._engine: Any
        self._engine, *_ = deepspeed.initialize(
            model=policy.model, optimizer=self._optimizer, config=_settings(cfg, world.size, hidden, low=low)
        )

    @property
    def forward(self) -> torch.nn.Module:
        engine: torch.nn.Module = self._engine
        return engine

    @property
    def model(self) -> PreTrainedModel:
        return self._policy.model if self._whole is None else self._whole

    def reset(self) -> None:
        """DeepSpeed forgets gradients after each step."""

    def prepare(self, *, last: bool) -> None:
        self._drop()
        self._engine.set_gradient_accumulation_boundary(last)

    def backward(self, loss: torch.Tensor) -> None:
        self._engine.backward(loss * self._world.size)  # it averages over the ranks

    def step(self, rate: float, loss: float) -> tuple[float, bool]:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        if self._stage == 0:
            norm, updated = self._whole_step(loss)
        else:
            self._engine.step()
            updated = not self._engine.optimizer.overflow
            norm = float(self._engine.get_global_grad_norm()) if updated else math.inf
        self._fill()
        return norm, updated

    def _whole_step(self, loss: float) -> tuple[float, bool]:
        """Without ZeRO DeepSpeed would apply gradients that are not finite."""
        import torch

        gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        updated = math.isfinite(norm) and math.isfinite(loss)
        if updated:
            self._engine.step()
        else:
            self._engine.zero_grad()
        return norm, updated

    def weights(self) -> dict[str, torch.Tensor]:
        found = {}
        for name, parameter in self._parameters.items():
            # One after another, and off the device at once: all of them together need not fit on a rank.
            with self._gathered(parameter):
                if self._world.rank == 0:
                    found[name] = parameter.detach().cpu().clone()
        return found

    def tensors(self) -> dict[str, torch.Tensor]:
        import torch
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if self._stage == 0:
            return optimizer_tensors(self._optimizer)
        states = [state for state in self._optimizer.state.values() if state]
        found: dict[str, Any] = {}
        for i, parameter in enumerate(self._parameters.values()):
            whole = {}
            if states:
                whole = {name: safe_get_full_optimizer_state(parameter, name) for name in _MOMENTS}
            if self._low:  # in float32 a master is the weight itself
                whole[MASTER] = safe_get_full_fp32_param(parameter)
            if self._world.rank == 0:
                found |= {f"{i}.{name}": tensor.detach().cpu().clone() for name, tensor in whole.items()}
                if states:
                    # Every rank has counted the same steps, so the first state's count is that of all.
                    found[f"{i}.step"] = torch.tensor(float(states[0]["step"]))
        return found

    def load(self, weights: Iterable[tuple[str, torch.Tensor]], tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        for name, tensor in weights:
            if name not in self._parameters:
                raise ConfigError(f"checkpoint and policy have different trainable tensors, for example {name}")
            self._set_weight(self._parameters[name], tensor)
        if self._stage == 0:
            load_optimizer(self._optimizer, dict(tensors))
        else:  # a tensor at a time: `tensors` comes from rank 0, and no rank is to hold all of them
            parameters = list(self._parameters.values())
            for name, tensor in tensors:
                index, kind = name.split(".", 1)
                self._set_state(parameters[int(index)], kind, tensor)
        self._fill()

    def _set_weight(self, parameter: torch.Tensor, value: torch.Tensor) -> None:
        """The weight itself and what the optimizer holds of it in float32."""
        import torch

        with torch.no_grad():
            if self._stage == 3:
                with self._deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                    parameter.copy_(value)
            else:
                parameter.copy_(value)
        if self._stage:
            self._set_state(parameter, MASTER, value.float())

    def _set_state(self, parameter: torch.Tensor, kind: str, value: torch.Tensor) -> None:
        """This rank's share of one optimizer tensor; `step` is that of all parameters."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state
        from deepspeed.utils.tensor_fragment import safe_set_local_fp32_param, safe_set_local_optimizer_state

        if kind != MASTER:
            self._start_states()
        if kind == "step":
            for state in self._optimizer.state.values():
                state["step"] = value.clone() if hasattr(state["step"], "clone") else int(value)
        elif self._stage == 3:
            share = self._share_of(parameter, value)
            if kind == MASTER:
                safe_set_local_fp32_param(parameter, share)
            else:
                safe_set_local_optimizer_state(parameter, share, kind)
        elif kind == MASTER:
            safe_set_full_fp32_param(parameter, value)
        else:
            safe_set_full_optimizer_state(parameter, value, kind)

    def _share_of(self, parameter: Any, value: torch.Tensor) -> torch.Tensor:
        """What this rank holds of a tensor under ZeRO-3: equal parts, the last ones filled up with zeros."""
        import torch

        size = parameter.ds_tensor.numel()  # the same on every rank, padding included
        part = value.flatten()[size * self._world.rank : size * (self._world.rank + 1)]
        return torch.cat([part, part.new_zeros(size - part.numel())])

    def _start_states(self) -> None:
        """Make the states that AdamW otherwise makes at its first step."""
        import torch

        if any(self._optimizer.state.values()):
            return
        # The optimizer's own parameters are flat partitions now, not the policy's: states are keyed by those.
        zero = self._engine.optimizer
        flat = zero.fp32_partitioned_groups_flat if self._stage == 3 else zero.single_partition_of_fp32_groups
        for tensor in flat:
            step: Any = 0 if type(self._optimizer) is not torch.optim.AdamW else torch.tensor(0.0)
            moments = {name: torch.zeros_like(tensor) for name in _MOMENTS}
            self._optimizer.state[tensor] = {"step": step, **moments}
        if self._stage < 3:
            # Links the policy's parameters to their parts of the flat states; by itself only after a first step.
            zero._lazy_init_hp_params_optimizer_state()

    def _gathered(self, parameter: torch.Tensor) -> AbstractContextManager[object]:
        return self._deepspeed.zero.GatheredParameters([parameter]) if self._stage == 3 else nullcontext()

    def _drop(self) -> None:
        """Free the whole weights: they are for generation, and memory is now for training."""
        for parameter in self._whole.parameters() if self._whole is not None else ():
            parameter.data = parameter.data.new_empty(0)

    def _fill(self) -> None:
        for mine, whole in self._pairs():
            with self._gathered(mine):
                whole.data = mine.detach().clone()

    def _pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if self._whole is not None:
            yield from zip(self._policy.model.parameters(), self._whole.parameters(), strict=True)


def _settings(cfg: DeepSpeedTrainerConfig, ranks: int, hidden: int, *, low: bool) -> dict[str, object]:
    """DeepSpeed's own configuration. Batches are counted by us: it is told of one for each rank."""
    zero: dict[str, Any] = {"stage": cfg.zero_stage}
    if cfg.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if cfg.offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    if cfg.zero_stage == 3:
        zero["stage3_param_persistence_threshold"] = 10 * hidden  # norms and biases stay whole
    return {
        "train_batch_size": ranks,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": cfg.grad_clip,
        "zero_optimization": zero,
        "steps_per_print": None,
        "bf16": {"enabled": low},
        # With sums in float32 stage 1 is another optimizer of DeepSpeed's, which starts with a step of its own.
        "data_types": {"grad_accum_dtype": "fp32" if low and cfg.zero_stage > 1 else None},
    }
