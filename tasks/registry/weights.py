"""Are the weights that a version of a model points to still those that were promoted?"""

from __future__ import annotations

from cures_core.checkpoints.checkpoint import weights_digest
from cures_core.errors import ConfigError, CorruptArtifact
from tasks.registry.history import Entry, existing_pointer, roll_back, rollback_target
from tasks.runs.figures import EpochFigures
from tasks.runs.prune import checkpoint_of
from tasks.runs.records import committed, files_of
from tasks.storage import Store


def weights_fault(store: Store, entry: Entry, *, deep: bool = False) -> str:
    """What is wrong with them, and the remedy; "" where nothing is. `deep` reads every byte."""
    key = entry.state.partition("/")[2]
    try:
        record = committed(store, EpochFigures, key)
        if record is None:
            return f"{entry.state}: is not in this store any more. To make it again: cures run --resume {entry.run}"
        found = record.figures.weights_digest
        if deep:
            found = weights_digest(checkpoint_of(record, files_of(store, record)))
        elif record.files is not None:
            checkpoint_of(record, store.local_path(record.files))
    except (ConfigError, CorruptArtifact) as error:
        return str(error)
    if entry.weights and found != entry.weights:
        return (
            f"{entry.state}: holds weights {found[:12]}, promoted were {entry.weights[:12]}: the epoch was trained "
            f"again, with another outcome. To promote what is there: cures promote {entry.run}"
        )
    return ""


def checked_roll_back(store: Store, model: str, to: int | None, who: str, why: str) -> Entry:
    """`roll_back`, where the weights to go back to are there. Raises `CorruptArtifact` where they are not."""
    target = rollback_target(existing_pointer(store, model)[1], model, to)
    if fault := weights_fault(store, target):
        raise CorruptArtifact(f"{model}: nothing was changed, version {target.version} cannot be gone back to. {fault}")
    return roll_back(store, model, to, who, why)
