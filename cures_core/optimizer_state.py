"""AdamW's moments as a flat dictionary of tensors, for safetensors and back."""

from __future__ import annotations

from typing import Any


def optimizer_tensors(optimizer: Any) -> dict[str, Any]:
    """`<parameter index>.<moment>` -> tensor, for all parameters that have been stepped."""
    return {
        f"{index}.{name}": tensor
        for index, moments in optimizer.state_dict()["state"].items()
        for name, tensor in moments.items()
    }


def load_optimizer(optimizer: Any, tensors: dict[str, Any]) -> None:
    """Restore what `optimizer_tensors` returned; learning rates and decay stay as configured."""
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    full = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": full["param_groups"]})
