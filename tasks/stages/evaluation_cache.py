"""Knows which completions of a suite were made and judged before: by policy, suite and settings, across runs.

An entry holds counts of every item, not scores: other intervals, or a suite beside it, need no new completion.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel

from cures_core.errors import CorruptArtifact
from cures_core.files import digest_json
from cures_core.jobs.assemble import versions
from cures_core.jobs.kept import keep, kept, sealed, unsealed
from tasks.storage import Store
from tasks.storage.values import set_aside

SCHEMA = 3

_log = logging.getLogger(__name__)


def rows_key(suite: Mapping[str, object], scored: Mapping[str, object], used: Iterable[BaseModel | None] = ()) -> str:
    """Key of a suite's completions: everything they and their verdicts depend on. `suite`: its items, and how they are
    answered; `scored`: the policy that answers; `used`: settings whose packages compute it."""
    return digest_json({"schema": SCHEMA, "suite": suite, "scored": scored, "versions": versions(*used)})


def fetch_rows(store: Store, key: str, path: Path) -> bool:
    """Write the rows of an earlier evaluation to `path`; False where there are none, or damaged ones."""
    data = store.get(_place(key))
    rows = None if data is None else unsealed(data)
    if rows is not None:
        keep(path, rows)
    elif data is not None:
        _log.warning("%s: not what was written; evaluating again", _place(key))
    return rows is not None


def keep_rows(store: Store, key: str, path: Path) -> None:
    """Keep the rows in `path`; whoever was first stays. Damaged ones that were there are set aside.

    Raises `CorruptArtifact` where `path` holds none.
    """
    place, rows = _place(key), kept(path)
    if rows is None:
        raise CorruptArtifact(f"{path}: not the rows that were written; resume to make them again")
    there = store.get(place)
    if there is not None and unsealed(there) is None:
        _log.warning("%s: set aside as %s", place, set_aside(store, place, there))
        store.compare_and_swap(place, there, sealed(rows))
    else:
        store.put_if_absent(place, sealed(rows))


def read_rows(store: Store, place: str) -> object:
    """The rows of an entry, by its place in the store; None where there are none. Raises `CorruptArtifact`."""
    data = store.get(place)
    if data is not None and unsealed(data) is None:
        raise CorruptArtifact(f"{place}: its bytes are not those that were written")
    return None if data is None else unsealed(data)


def part_key(key: str, shard: int, shards: int) -> str:
    """Key of the rows of one shard of a suite; gone when those of the whole suite are there."""
    return f"parts/{key}/{shard}-of-{shards}"


def delete_parts(store: Store, key: str) -> None:
    """Remove the shards of a suite whose rows are kept as a whole."""
    store.delete(_place(f"parts/{key}"))


def _place(key: str) -> str:
    return f"evaluations/{key}"
