"""Files that holders of a stage published and did not live to commit, or to delete: no record names them.

Only what nobody can name any more counts: the lease under which it was published has gone to another holder, or been
given back, and no commit is noted in it. A stage whose record is not there or damaged, or was set aside, keeps all that
it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cures_core.errors import CorruptArtifact
from tasks.runs.records import parse_record, read_any, record_place
from tasks.storage import Store
from tasks.storage.fencing import parse

_WRITER = re.compile(r"(.+?)-(\d+)(\.\d+)?(-pruned)?")


def orphans(store: Store, stages: Iterable[str] | None = None) -> Iterator[str]:
    """Prefixes of such files: of these stages (`stage/key`), or (None) of all."""
    for prefix in sorted({p for place in _places(stages) for p in _published(store, place)}):
        stage, key, writer = prefix.split("/")[1:]
        if _is_void(store, writer) and _is_left(store, stage, key, prefix):
            yield prefix


def sweep_orphans(store: Store, stages: Iterable[str] | None = None) -> list[str]:
    """Delete them; returns their prefixes."""
    found = list(orphans(store, stages))
    for prefix in found:
        store.delete(prefix)
    return found


def _places(stages: Iterable[str] | None) -> list[str]:
    return ["artifacts"] if stages is None else [f"artifacts/{stage}" for stage in stages]


def _published(store: Store, place: str) -> Iterator[str]:
    for key in store.list(place):
        parts = key.split("/")
        if len(parts) > 4:
            yield "/".join(parts[:4])


def _is_void(store: Store, writer: str) -> bool:
    """Can the holder that published as `writer`, `<run>-<token>...`, commit no more?"""
    found = _WRITER.fullmatch(writer)
    if found is None:
        return False
    try:
        _, held = parse(store, found[1])
    except CorruptArtifact:
        return False
    return held is not None and held.pending is None and (int(found[2]) < held.token or held.holder is None)


def _is_left(store: Store, stage: str, key: str, prefix: str) -> bool:
    """Does the record of the stage name other files? What a record that was set aside names stays."""
    if any(place.startswith(f"damaged/stages/{stage}/{key}.") for place in store.list(f"damaged/stages/{stage}")):
        return False
    try:
        record = read_any(store, stage, key)
    except CorruptArtifact:
        return False
    return record is not None and record.files != prefix


def drop_unnamed(store: Store, run: str, stage: str, key: str, prefix: str) -> None:
    """Delete files that a holder of `run` has published and could not commit, because it had lost its lease."""
    try:
        _, held = parse(store, run)
        raw = store.get(record_place(stage, key))
        named = raw is not None and parse_record(raw, stage, key).files == prefix
    except CorruptArtifact:  # what it says is not known
        return
    if not named and (held is None or held.pending is None):
        store.delete(prefix)
