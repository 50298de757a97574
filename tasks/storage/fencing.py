"""Commits that only the current holder of a run's lease can make, on stores that can swap one value at a time.

A check before a write is not enough: a process may be stopped between the two. So a commit first notes itself in the
lease, by compare-and-swap: that is the moment it counts, and it fails if another process holds the run by then. Only
then is the value written and the note removed. Whoever finds a noted commit, such as the next holder, finishes it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from typing import Any

from cures_core.errors import CorruptArtifact, LeaseLost
from cures_core.faults import fault_point
from cures_core.files import canonical_json
from cures_core.names import check_key
from tasks.storage.base import Store

_FIELDS = {"token", "holder", "machine", "pid", "started", "clock", "beat", "pending"}


def commit(store: Store, name: str, token: int, key: str, data: bytes, expected: bytes | None = None) -> bool:
    """Change the value of `key` from `expected` (None: absent) to `data`, as the holder of run `name` with `token`.

    False if the value was not `expected`: what is there counts. Raises `LeaseLost`, with nothing written, if the run
    was taken over. Killed at any point, the commit is finished by the next holder, or was never begun.
    """
    note = {"key": check_key(key), "expected": _to_text(expected), "data": _to_text(data)}

    def noted(held: dict[str, Any]) -> dict[str, Any]:
        _apply(store, held["pending"])  # another commit of this holder is under way
        return {**held, "pending": note}

    swap(store, name, token, noted)
    fault_point("commit.noted", key)
    done = store.compare_and_swap(key, expected, data)
    _forget(store, name, note)
    return done or store.get(key) == data


def settle(store: Store, name: str) -> None:
    """Finish a commit that was noted in the run's lease by a process that did not come to its end."""
    _, held = parse(store, name)
    if held is not None and held["pending"] is not None:
        _apply(store, held["pending"])
        _forget(store, name, held["pending"])


def check_token(store: Store, name: str, token: int) -> None:
    """Raise `LeaseLost` unless `token` is the run's current one: before work that a stale holder should not begin."""
    _current(store, name, token)


def swap(store: Store, name: str, token: int, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the lease as its holder, whatever other threads of the holder do to it. Raises `LeaseLost`."""
    while True:
        raw, held = _current(store, name, token)
        if store.compare_and_swap(lease_key(name), raw, encode(change(held))):
            return


def lease_key(name: str) -> str:
    return f"leases/{name}.json"


def encode(lease: dict[str, Any]) -> bytes:
    return canonical_json(lease)


def parse(store: Store, name: str) -> tuple[bytes | None, dict[str, Any] | None]:
    """The lease's bytes and what they say; None twice if the run never had one. Raises `CorruptArtifact`."""
    raw = store.get(lease_key(name))
    if raw is None:
        return None, None
    try:
        held = json.loads(raw)
    except ValueError:
        held = None
    if not isinstance(held, dict) or held.keys() != _FIELDS:
        raise CorruptArtifact(
            f"{lease_key(name)}: not a lease ({raw[:40]!r}). If nobody works on run {name}, remove it from the store"
        )
    return raw, held


def _current(store: Store, name: str, token: int) -> tuple[bytes, dict[str, Any]]:
    raw, held = parse(store, name)
    if raw is None or held is None or held["token"] != token or held["holder"] is None:
        holder = "nobody" if held is None else held["holder"] or "nobody"
        raise LeaseLost(
            f"run {name} (token {token}) is held by {holder} now: this process stood still for too long, or gave it "
            f"back. Nothing was committed. Stop here"
        )
    return raw, held


def _apply(store: Store, note: dict[str, str | None] | None) -> None:
    if note is not None:
        store.compare_and_swap(str(note["key"]), _to_bytes(note["expected"]), _to_bytes(note["data"]) or b"")


def _forget(store: Store, name: str, note: dict[str, str | None]) -> None:
    """Whoever holds the lease: the note has been carried out."""
    while True:
        raw, held = parse(store, name)
        if held is None or held["pending"] != note:
            return
        if store.compare_and_swap(lease_key(name), raw, encode({**held, "pending": None})):
            return


def _to_text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _to_bytes(text: str | None) -> bytes | None:
    try:
        return None if text is None else base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise CorruptArtifact("a commit noted in a lease is not readable") from error
