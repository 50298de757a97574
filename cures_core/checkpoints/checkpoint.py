"""The full training state on disk: weights, optimizer, curriculum, generators, counters, metrics; manifest last.

A checkpoint is a folder:
    weights.safetensors     trainable tensors of the policy; large ones as weights-00001-of-00003.safetensors ...
    optimizer.safetensors   optimizer moments, and master weights; large ones likewise
    curriculum.safetensors  arrays of the curriculum's state
    state.json              everything else: counters, generator states, the curriculum's plain values
    metrics.jsonl           this epoch's steps so far
    rollouts.jsonl          this epoch's kept rollouts so far, where there are any
    manifest.json           sizes and SHA-256 of the above, written last
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cures_core.arrays import put_arrays, take_arrays
from cures_core.errors import CorruptArtifact
from cures_core.faults import fault_point
from cures_core.files import canonical_json, digest_file, digest_json, sync_folder
from cures_core.manifest import verify_manifest, write_manifest

if TYPE_CHECKING:
    import torch

FORMAT = 1
SHARD_BYTES = 4 << 30
ROLLOUTS = "rollouts.jsonl"


@dataclass
class Checkpoint:
    """In memory: `weights` and `optimizer` are name -> torch tensor, `curriculum` is a `state_dict()`."""

    weights: dict[str, Any]
    optimizer: dict[str, Any]
    curriculum: dict[str, Any]
    state: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    rollouts: list[bytes] = field(default_factory=list)
    """Lines of `cures_core.kept_rollouts.table`, redacted already."""

    @property
    def step(self) -> int:
        return int(self.state["step"])

    @property
    def healthy(self) -> bool:
        """Written after a step with a finite loss and gradient, as far as the trainer tells."""
        return not self.state.get("trainer", {}).get("bad_steps")

    def snapshot(self) -> Checkpoint:
        """A copy that training, going on, does not change; its tensors are on the CPU."""
        weights, optimizer = (
            {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}
            for tensors in (self.weights, self.optimizer)
        )
        rest = copy.deepcopy((self.curriculum, self.state, self.metrics))
        return Checkpoint(weights, optimizer, *rest, rollouts=list(self.rollouts))


def save_checkpoint(checkpoint: Checkpoint, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write `folder` so that it either does not exist or is complete, whatever happens meanwhile.

    Tensors go into files of at most `shard_bytes` (a larger tensor into one of its own); few into one file.
    """
    from safetensors.numpy import save_file as save_arrays

    scratch = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    _save_tensors(checkpoint.weights, scratch, "weights", shard_bytes)
    _save_tensors(checkpoint.optimizer, scratch, "optimizer", shard_bytes)
    fault_point("checkpoint.half_written", str(checkpoint.step))
    plain, arrays = take_arrays(checkpoint.curriculum)
    save_arrays(arrays, scratch / "curriculum.safetensors")
    (scratch / "state.json").write_bytes(canonical_json({"format": FORMAT, "curriculum": plain, **checkpoint.state}))
    (scratch / "metrics.jsonl").write_bytes(b"".join(canonical_json(row) + b"\n" for row in checkpoint.metrics))
    if checkpoint.rollouts:
        (scratch / ROLLOUTS).write_bytes(b"".join(checkpoint.rollouts))
    fault_point("checkpoint.before_manifest", str(checkpoint.step))
    write_manifest(scratch)
    fault_point("checkpoint.before_rename", str(checkpoint.step))
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    sync_folder(folder.parent)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Verify every byte, then load. Raises `CorruptArtifact`; tensors come back on the CPU."""
    from safetensors.numpy import load_file as load_arrays

    verify_manifest(folder)
    state = json.loads((folder / "state.json").read_bytes())
    if state.pop("format") != FORMAT:
        raise CorruptArtifact(
            f"{folder / 'state.json'}: not a checkpoint of format {FORMAT}; use the version that wrote it"
        )
    arrays = load_arrays(folder / "curriculum.safetensors")
    return Checkpoint(
        weights=_load_tensors(folder, "weights"),
        optimizer=_load_tensors(folder, "optimizer"),
        curriculum=put_arrays(state.pop("curriculum"), arrays),
        state=state,
        metrics=[json.loads(line) for line in (folder / "metrics.jsonl").read_bytes().splitlines()],
        rollouts=(folder / ROLLOUTS).read_bytes().splitlines(keepends=True) if (folder / ROLLOUTS).exists() else [],
    )


def weights_digest(folder: Path) -> str:
    """SHA-256 that names a checkpoint's weights, hex."""
    digests = [digest_file(path) for path in _shards(folder, "weights")]
    return digests[0] if len(digests) == 1 else digest_json(digests)


def _save_tensors(tensors: Mapping[str, torch.Tensor], folder: Path, name: str, shard_bytes: int) -> None:
    from safetensors.torch import save_file

    shards: list[list[str]] = [[]]
    room = shard_bytes
    for key in sorted(tensors):
        size = tensors[key].numel() * tensors[key].element_size()
        if shards[-1] and size > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(key)
        room -= size
    for i, keys in enumerate(shards, 1):
        part = "" if len(shards) == 1 else f"-{i:05d}-of-{len(shards):05d}"
        # Tensors may be views of one flat buffer, which the format refuses: `clone` leaves the buffer behind.
        whole = {key: tensors[key].detach().cpu().contiguous().clone() for key in keys}
        save_file(whole, folder / f"{name}{part}.safetensors")


def _load_tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {key: tensor for path in _shards(folder, name) for key, tensor in load_file(path).items()}


def _shards(folder: Path, name: str) -> list[Path]:
    """The files that hold the tensors, in their order."""
    whole = folder / f"{name}.safetensors"
    found = [whole] if whole.exists() else sorted(folder.glob(f"{name}-*-of-*.safetensors"))
    if not found:
        raise CorruptArtifact(f"{whole}: is gone")
    return found
