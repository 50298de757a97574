"""Nested states taken apart: numpy arrays by name, and the rest as JSON values that say where they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_MARK = "__array__"


def take_arrays(value: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """(the value with {"__array__": name} in place of every array, the arrays by dotted name)."""
    arrays: dict[str, np.ndarray] = {}
    return _take(value, "", arrays), arrays


def put_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Undo `take_arrays`."""
    if isinstance(value, dict):
        if set(value) == {_MARK}:
            return arrays[value[_MARK]]
        return {k: put_arrays(v, arrays) for k, v in value.items()}
    return value


def _take(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[path] = np.ascontiguousarray(value)
        return {_MARK: path}
    if isinstance(value, Mapping):
        return {str(k): _take(v, f"{path}.{k}" if path else str(k), arrays) for k, v in value.items()}
    return value
