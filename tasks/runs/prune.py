"""Which committed checkpoints stay. Weights and optimizer states go, posteriors, metrics and records never."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from pathlib import Path

from cures_core.checkpoints.checkpoint import Checkpoint
from cures_core.errors import ConfigError, CorruptArtifact, TryAgain
from tasks.registry.history import existing_pointer, model_names
from tasks.runs.figures import EpochFigures
from tasks.runs.notes import run_names, stage_notes, stage_record
from tasks.runs.opening import fork_of
from tasks.runs.orphans import sweep_orphans
from tasks.runs.reading import by_epoch
from tasks.runs.records import Record, files_of, record_bytes, record_place
from tasks.stages.unfinished import kept_place
from tasks.storage import Store
from tasks.storage.lease import Lease

_KEPT = (
    *("posterior.parquet", "tally.json", "rollouts.parquet", "figures.json", "timings.jsonl"),
    "checkpoint/metrics.jsonl",
)
_TTL_S = 60.0
_log = logging.getLogger(__name__)


def checkpoint_of(record: Record[EpochFigures], files: Path) -> Path:
    """The checkpoint among the files of an epoch's record. `ConfigError` where `prune` has deleted it."""
    if record.figures.pruned:
        raise ConfigError(
            f"{record.id}: its weights were deleted by `cures runs prune`; go on from a later epoch, or train it "
            f"again: cures run --resume RUN --from 'train_epoch {record.inputs.get('epoch', 'K')}'"
        )
    return files / "checkpoint"


def prune(store: Store, run: str, keep: int) -> list[int]:
    """Delete the weights and optimizer states of all but the newest `keep` epochs of a run; returns the epochs.

    Stays: what any version of a model name points to, where any run stands, and the newest checkpoint that reads back
    intact and healthy if none of the newest `keep` does. The checkpoint that a fork begins at goes with the epoch that
    began there. Raises `LeaseHeld` while the run goes on.
    """
    lease = Lease(store, run, _TTL_S)
    try:
        epochs = by_epoch(store, run, EpochFigures)
        if not epochs:
            raise ConfigError(f"run {run} has no epochs in this store")
        newest_first = sorted(epochs, reverse=True)
        kept = set(newest_first[:keep])
        if not any(_is_healthy(store, epochs[k]) for k in kept):
            kept |= set([k for k in newest_first[keep:] if _is_healthy(store, epochs[k])][:1])
        wanted = _pointed_to(store) | _standing(store)
        gone = [k for k in sorted(epochs) if k not in kept and epochs[k].id not in wanted]
        pruned = [k for k in gone if _lighten(store, lease, run, epochs[k])]
        _forget_beginning(store, run)
        return pruned
    finally:
        lease.close()


def _pointed_to(store: Store) -> set[str]:
    """Records of every version of every model name: each may be rolled back to or exported."""
    return {entry.state for name in model_names(store) for entry in existing_pointer(store, name)[1].history}


def _standing(store: Store) -> set[str]:
    """The last epoch's record of every run: what it goes on from."""
    last = set()
    for run in run_names(store):
        epochs = {int(n["label"]): n["key"] for n in stage_notes(store, run) if n["stage"] == EpochFigures.stage}
        if epochs:
            last.add(f"{EpochFigures.stage}/{epochs[max(epochs)]}")
    return last


def _is_healthy(store: Store, record: Record[EpochFigures]) -> bool:
    if record.files is None or record.figures.pruned:
        return False
    try:
        store.verify_files(record.files, record.manifest)
    except CorruptArtifact:
        return False
    state = json.loads((store.local_path(record.files) / "checkpoint" / "state.json").read_bytes())
    return Checkpoint({}, {}, {}, state).healthy


def _forget_beginning(store: Store, run: str) -> None:
    """Delete the checkpoint that a fork begins at, once the epoch that began there is pruned in all runs that did."""
    begun = fork_of(store, run)
    if begun is None or not begun.checkpoint:
        return
    if not any(_may_begin_at(store, name, begun.checkpoint) for name in run_names(store)):
        store.delete(kept_place(begun.checkpoint))


def _may_begin_at(store: Store, run: str, checkpoint: str) -> bool:
    """May the run have to train again from a kept checkpoint?"""
    try:
        begun = fork_of(store, run)
        if begun is None or begun.checkpoint != checkpoint:
            return False
        record = stage_record(store, run, EpochFigures, str(begun.epoch + 1))
    except (CorruptArtifact, ValueError) as error:  # what cannot be read may need it
        _log.warning("%s: whether it needs its checkpoint %s is not known: %s", run, checkpoint[:12], error)
        return True
    return record is None or not record.figures.pruned


def _lighten(store: Store, lease: Lease, run: str, record: Record[EpochFigures]) -> bool:
    """Put a record that points to the files without the heavy ones in its place, then delete the old files."""
    key = record_place(record.stage, record.key)
    raw = store.get(key)
    if record.figures.pruned:
        sweep_orphans(store, [record.id])  # whoever pruned it may have been killed before the old files were deleted
        return False
    if record.files is None or raw is None:
        return False
    try:
        before = files_of(store, record)  # what is kept must be what was made
    except CorruptArtifact as error:
        _log.warning("%s Nothing of this epoch was deleted", error)
        return False
    with tempfile.TemporaryDirectory(prefix="cures-prune-") as scratch:
        folder = Path(scratch) / "files"
        for name in _KEPT:
            if (before / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(before / name, folder / name)
        prefix = f"artifacts/{record.id}/{run}-{lease.token}-pruned"
        manifest = store.publish_files(prefix, folder)
    figures = record.figures.model_copy(update={"pruned": True})
    light = record.model_copy(update={"files": prefix, "manifest": manifest, "figures": figures})
    if not lease.commit(key, record_bytes(light), expected=raw):
        store.delete(prefix)
        raise TryAgain(f"{record.id} was changed by another process just now; look at it, then try again")
    store.delete(record.files)
    return True
