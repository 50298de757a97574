"""The checkpoints `step-NNNNNN` inside a stage: written in the background, few kept, the newest intact one found."""

from __future__ import annotations

import json
import logging
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cures_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cures_core.config.checkpoint import CheckpointConfig
from cures_core.errors import CorruptArtifact
from cures_core.manifest import verify_manifest

SPOILT = "spoilt.json"
"""Beside the checkpoints of an epoch that diverged: from which step on their weights give what is not finite."""

_log = logging.getLogger(__name__)


class StepWriter:
    """Saves into `folder`, one checkpoint at a time. `close` finishes what has begun, or raises its error."""

    def __init__(self, folder: Path, cfg: CheckpointConfig) -> None:
        self._folder, self._cfg = folder, cfg
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if cfg.background else None
        self._open: Future[None] | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Begin to save the checkpoint as it is now, once the one before is on disk. Raises what went wrong there."""
        self.wait()
        if self._thread is None:
            save_step(checkpoint, self._folder, self._cfg)
        else:
            self._open = self._thread.submit(save_step, checkpoint.snapshot(), self._folder, self._cfg)

    def wait(self) -> None:
        """Until everything is on disk. Raises what saving has raised."""
        saving, self._open = self._open, None
        if saving is not None:
            saving.result()

    def close(self) -> None:
        try:
            self.wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()


def save_step(checkpoint: Checkpoint, folder: Path, cfg: CheckpointConfig | None = None) -> None:
    """Save `folder/step-NNNNNN`, then delete those that need not be kept."""
    cfg = cfg or CheckpointConfig()
    save_checkpoint(checkpoint, folder / f"step-{checkpoint.step:06d}", cfg.shard_bytes)
    retain(folder, cfg.keep_last)


def retain(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep`, and but the newest healthy one whose bytes have been read back."""
    found = sorted(folder.glob("step-*"), reverse=True)
    kept = found[:keep]
    if not any(_is_healthy(path) for path in kept):
        kept += [path for path in found[keep:] if _is_healthy(path)][:1]
    for path in found:
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)


def is_whole(folder: Path) -> bool:
    """Is a checkpoint of this machine what was written? What is wrong with one that is not is logged."""
    try:
        verify_manifest(folder)
    except CorruptArtifact as error:
        _log.warning("checkpoint on this machine passed over: %s", error)
        return False
    return True


def _is_healthy(folder: Path) -> bool:
    if not is_whole(folder):
        return False
    state = json.loads((folder / "state.json").read_bytes())
    return Checkpoint({}, {}, {}, state).healthy


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
            f"{folder}: none of {len(found)} checkpoints is intact. To begin this stage afresh: rm -r {folder}, "
            f"then resume"
        )
    return None
