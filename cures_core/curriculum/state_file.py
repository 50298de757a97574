"""A curriculum's state in one safetensors file: arrays as tensors, everything else as JSON in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cures_core.arrays import put_arrays, take_arrays
from cures_core.errors import CorruptArtifact, MissingInput
from cures_core.failures import machine_failure
from cures_core.files import canonical_json, write_atomic

_KEY = "cures.curriculum.state"


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a `state_dict`, whole or not at all; equal states give equal bytes."""
    from safetensors.numpy import save

    plain, arrays = take_arrays(state)
    write_atomic(path, save(arrays, {_KEY: canonical_json(plain).decode()}))


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote. Raises `MissingInput`, or `CorruptArtifact` for anything else."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise MissingInput(f"{path}: no such curriculum state")
    try:
        # Opened twice: whatever the system refuses, safe_open says that there is no such file.
        with path.open("rb"), safe_open(path, framework="numpy") as f:
            plain = json.loads((f.metadata() or {})[_KEY])
            state = put_arrays(plain, {name: f.get_tensor(name) for name in f.keys()})  # noqa: SIM118 (no mapping)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        unreadable = CorruptArtifact(f"{path}: not a readable curriculum state ({error}); take an earlier one")
        raise machine_failure(error, path) or unreadable from error
    if not isinstance(state, dict):
        raise CorruptArtifact(f"{path}: not a curriculum's state; take an earlier one")
    return state
