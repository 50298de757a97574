"""A snapshot's data put back where its DVC remote has lost it, from the store's own copy of the same bytes."""

from __future__ import annotations

from cures_core.config.snapshot import SnapshotConfig
from cures_core.errors import CorruptArtifact, MissingInput
from tasks.runs.figures import EpochFigures, PriorFigures
from tasks.runs.notes import stage_record
from tasks.runs.records import files_of
from tasks.snapshots.objects import digest_md5, open_objects
from tasks.snapshots.published import published_file, published_numbers
from tasks.snapshots.reading import DATA, find_snapshot, read_snapshot
from tasks.storage import Store


def restore_snapshot(tag: str, store: Store, cfg: SnapshotConfig) -> bool:
    """True if the data was put back, False if it was there and whole.

    Raises `MissingInput` where neither remote nor store has the bytes that the tag names.
    """
    snapshot = find_snapshot(tag, cfg)
    try:
        read_snapshot(tag, cfg)
        return False
    except CorruptArtifact:
        data = _from_store(tag, store)
    if data is None or digest_md5(data) != snapshot.md5:
        raise MissingInput(f"{tag}: {cfg.remote} has lost it and this store has no copy; run its run again to make it")
    objects = open_objects(cfg.remote or "", cfg.endpoint_url)
    objects.write(snapshot.md5, data)
    objects.flush(snapshot.md5)
    read_snapshot(tag, cfg)
    return True


def _from_store(tag: str, store: Store) -> bytes | None:
    _, run, number = tag.split("/")
    epoch = number.partition(".")[0]  # the rest says how often the epoch was done again
    if int(epoch) in published_numbers(store, run):
        return published_file(store, run, int(epoch), DATA)
    record = stage_record(store, run, EpochFigures, epoch) if int(epoch) else stage_record(store, run, PriorFigures)
    return None if record is None else (files_of(store, record) / DATA).read_bytes()
