"""AdamW's moments as a flat dictionary of tensors, for safetensors and back; shapes of such dictionaries as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


Shape = tuple[str, list[int]]
"""A tensor's dtype and shape, as JSON keeps them."""


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """`<parameter index>.<moment>` -> tensor, for all parameters that have been stepped."""
    return {
        f"{index}.{name}": tensor
        for index, moments in optimizer.state_dict()["state"].items()
        for name, tensor in moments.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Restore what `optimizer_tensors` returned; learning rates and decay stay as configured."""
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    full = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": full["param_groups"]})


def shapes_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    """Name -> [dtype, shape], as a JSON value."""
    return {name: (str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in tensors.items()}


def empty_tensor(shape: Shape) -> torch.Tensor:
    """A tensor to receive one that `shapes_of` has described."""
    import torch

    return torch.empty(shape[1], dtype=getattr(torch, shape[0]))
