"""A snapshot's data put back where its DVC remote has lost it, from the store's own copy of the same bytes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cures_core.config.snapshot import SnapshotConfig
from cures_core.errors import CorruptArtifact, MissingInput
from tasks.runs.figures import EpochFigures, PriorFigures, SnapshotFigures
from tasks.runs.notes import stage_record
from tasks.runs.records import files_of, read_any, read_record
from tasks.snapshots.objects import digest_md5, open_objects
from tasks.snapshots.pointers import DamagedReference
from tasks.snapshots.publish import publish_snapshot
from tasks.snapshots.published import published_about, published_file, published_numbers
from tasks.snapshots.reading import DATA, find_snapshot, read_snapshot
from tasks.storage import Store


def restore_snapshot(tag: str, store: Store, cfg: SnapshotConfig) -> bool:
    """True if the data was put back, False if it was there and whole.

    Raises `MissingInput` where neither remote nor store has the bytes that the tag names.
    """
    try:
        snapshot = find_snapshot(tag, cfg)
    except DamagedReference:
        return _published_again(tag, store, cfg)
    try:
        read_snapshot(tag, cfg)
        return False
    except CorruptArtifact:
        data = next((data for data in _from_store(tag, store) if digest_md5(data) == snapshot.md5), None)
    if data is None:
        raise MissingInput(f"{tag}: {cfg.remote} has lost it and this store has no copy; run its run again to make it")
    objects = open_objects(cfg.remote or "", cfg.endpoint_url)
    objects.write(snapshot.md5, data)
    objects.flush(snapshot.md5)
    read_snapshot(tag, cfg)
    return True


def _published_again(tag: str, store: Store, cfg: SnapshotConfig) -> bool:
    """Make a tag again that is damaged in the repository. Raises `DamagedReference` for one that a run has to make."""
    _, name, number = tag.split("/")
    if not number.isdecimal() or int(number) not in published_numbers(store, name):
        find_snapshot(tag, cfg)
        return False
    lineage = published_about(store, name, int(number)).lineage
    with tempfile.TemporaryDirectory(prefix="cures-restore-") as folder:
        parquet = Path(folder) / DATA
        parquet.write_bytes(published_file(store, name, int(number), DATA))
        publish_snapshot(parquet, lineage, tag, cfg, Path(folder) / "scratch")
    return True


def _from_store(tag: str, store: Store) -> Iterator[bytes]:
    """What may be the posterior that a tag names: as published, of the run's epoch, of the epoch as it was before."""
    _, run, number = tag.split("/")
    epoch = number.partition(".")[0]  # the rest says how often the epoch was done again
    if int(epoch) in published_numbers(store, run):
        yield published_file(store, run, int(epoch), DATA)
        return
    kind = EpochFigures if int(epoch) else PriorFigures
    noted = stage_record(store, run, kind, epoch if int(epoch) else "")
    if noted is not None:
        yield (files_of(store, noted) / DATA).read_bytes()
    for place in store.list(f"stages/{SnapshotFigures.stage}"):
        with contextlib.suppress(CorruptArtifact):  # that one cannot tell
            made = read_record(store, SnapshotFigures, place.rpartition("/")[2].removesuffix(".json"))
            states = made.parents[:1] if made is not None and made.figures.tag == tag else ()
            for state in states:
                record = read_any(store, *state.split("/"))
                if record is not None:
                    yield (files_of(store, record) / DATA).read_bytes()
