"""The full training state on disk: weights, optimizer, curriculum, generators, counters, metrics; manifest last.

A checkpoint is a folder:
    weights.safetensors     trainable tensors of the policy
    optimizer.safetensors   optimizer moments
    curriculum.safetensors  arrays of the curriculum's state
    state.json              everything else: counters, generator states, the curriculum's plain values
    metrics.jsonl           this epoch's steps so far
    manifest.json           sizes and SHA-256 of the above, written last
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cures_core.errors import CorruptArtifact
from cures_core.faults import fault_point
from cures_core.files import canonical_json, sync_folder
from cures_core.manifest import verify_manifest, write_manifest

FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass
class Checkpoint:
    """In memory: `weights` and `optimizer` are name -> torch tensor, `curriculum` is a `state_dict()`."""

    weights: dict[str, Any]
    optimizer: dict[str, Any]
    curriculum: dict[str, Any]
    state: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)

    @property
    def step(self) -> int:
        return int(self.state["step"])


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write `folder` so that it either does not exist or is complete, whatever happens meanwhile."""
    from safetensors.numpy import save_file as save_arrays
    from safetensors.torch import save_file as save_tensors

    scratch = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    save_tensors(_contiguous(checkpoint.weights), scratch / "weights.safetensors")
    save_tensors(_contiguous(checkpoint.optimizer), scratch / "optimizer.safetensors")
    fault_point("checkpoint.half_written", str(checkpoint.step))
    arrays: dict[str, np.ndarray] = {}
    plain = _take_arrays(checkpoint.curriculum, "", arrays)
    save_arrays(arrays, scratch / "curriculum.safetensors")
    (scratch / "state.json").write_bytes(canonical_json({"format": FORMAT, "curriculum": plain, **checkpoint.state}))
    (scratch / "metrics.jsonl").write_bytes(b"".join(canonical_json(row) + b"\n" for row in checkpoint.metrics))
    fault_point("checkpoint.before_manifest", str(checkpoint.step))
    write_manifest(scratch)
    fault_point("checkpoint.before_rename", str(checkpoint.step))
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    sync_folder(folder.parent)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Verify every byte, then load. Raises `CorruptArtifact`; tensors come back on the CPU."""
    from safetensors.numpy import load_file as load_arrays
    from safetensors.torch import load_file as load_tensors

    verify_manifest(folder)
    state = json.loads((folder / "state.json").read_bytes())
    if state.pop("format") != FORMAT:
        raise CorruptArtifact(
            f"{folder / 'state.json'}: not a checkpoint of format {FORMAT}; use the version that wrote it"
        )
    arrays = load_arrays(folder / "curriculum.safetensors")
    return Checkpoint(
        weights=load_tensors(folder / "weights.safetensors"),
        optimizer=load_tensors(folder / "optimizer.safetensors"),
        curriculum=_put_arrays(state.pop("curriculum"), arrays),
        state=state,
        metrics=[json.loads(line) for line in (folder / "metrics.jsonl").read_bytes().splitlines()],
    )


def save_step(checkpoint: Checkpoint, folder: Path, keep: int = 2) -> None:
    """Save `folder/step-NNNNNN`, then delete all but the newest `keep` (never the one just verified by writing it)."""
    save_checkpoint(checkpoint, folder / f"step-{checkpoint.step:06d}")
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def latest_step(folder: Path) -> Checkpoint | None:
    """The newest loadable `step-*` of a folder; a damaged one is passed over with a warning, None if there is none.

    Raises `CorruptArtifact` if there are checkpoints but not one of them can be trusted: that is not a fresh start.
    """
    found = sorted(folder.glob("step-*"), reverse=True)
    for path in found:
        try:
            return load_checkpoint(path)
        except CorruptArtifact as error:
            _log.warning("checkpoint passed over: %s", error)
    if found:
        raise CorruptArtifact(
            f"{folder}: none of {len(found)} checkpoints is intact; delete the folder to start it afresh"
        )
    return None


def _contiguous(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}


def _take_arrays(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """Replace arrays in a nested dict by {"__array__": name} and collect them."""
    if isinstance(value, np.ndarray):
        arrays[path] = np.ascontiguousarray(value)
        return {"__array__": path}
    if isinstance(value, Mapping):
        return {str(k): _take_arrays(v, f"{path}.{k}" if path else str(k), arrays) for k, v in value.items()}
    return value


def _put_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if set(value) == {"__array__"}:
            return arrays[value["__array__"]]
        return {k: _put_arrays(v, arrays) for k, v in value.items()}
    return value
