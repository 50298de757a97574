"""Commits that only the current holder of a run's lease can make, on stores that can swap one value at a time.

A check before a write is not enough: a process may be stopped between the two. So a commit first notes itself in the
lease, by compare-and-swap: that is the moment it counts, and it fails if another process holds the run by then. Only
then is the value written and the note removed. Whoever finds a noted commit, such as the next holder, finishes it.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

from pydantic import field_validator

from cures_core.config.base import Strict
from cures_core.errors import LeaseLost
from cures_core.faults import fault_point
from cures_core.names import check_key
from tasks.storage.base import Store
from tasks.storage.values import aside_command, decode_value, encode_value, set_aside


class Pending(Strict):
    """A commit that counts and may not have been carried out yet: `key` goes from `expected` to `data` (base64)."""

    key: str
    expected: str | None
    data: str | None

    @field_validator("expected", "data")
    @classmethod
    def _is_base64(cls, text: str | None) -> str | None:
        _to_bytes(text)
        return text


class Held(Strict):
    """The value of a lease. Ages are told by monotonic clocks, which mean something on `machine` alone."""

    token: int
    holder: str | None
    """Who holds it, in words; None: nobody does."""
    machine: str
    pid: int
    started: str | None
    """When the process started, in kernel ticks: tells it from another one that got its number."""
    clock: float
    """The holder's monotonic clock at its last sign of life."""
    beat: int
    """Signs of life so far."""
    pending: Pending | None


def commit(store: Store, name: str, token: int, key: str, data: bytes, expected: bytes | None = None) -> bool:
    """Change the value of `key` from `expected` (None: absent) to `data`, as the holder of `name` with `token`.

    False if the value was not `expected`: what is there counts. Raises `LeaseLost`, with nothing written, if the lease
    was taken over. Killed at any point, the commit is finished by the next holder, or was never begun.
    """
    note = Pending(key=check_key(key), expected=_to_text(expected), data=_to_text(data))

    def noted(held: Held) -> Held:
        _apply(store, held.pending)  # another commit of this holder is under way
        return held.model_copy(update={"pending": note})

    swap(store, name, token, noted)
    fault_point("commit.noted", key)
    done = store.compare_and_swap(key, expected, data)
    _forget(store, name, note)
    return done or store.get(key) == data


def settle(store: Store, name: str) -> None:
    """Finish a commit that was noted in the lease by a process that did not come to its end."""
    _, held = parse(store, name)
    if held is not None and held.pending is not None:
        _apply(store, held.pending)
        _forget(store, name, held.pending)


def check_token(store: Store, name: str, token: int) -> None:
    """Raise `LeaseLost` unless `token` is the current one: before work that a stale holder should not begin."""
    _current(store, name, token)


def swap(store: Store, name: str, token: int, change: Callable[[Held], Held]) -> None:
    """Change the lease as its holder, whatever other threads of the holder do to it. Raises `LeaseLost`."""
    while True:
        raw, held = _current(store, name, token)
        if store.compare_and_swap(lease_key(name), raw, encode(change(held))):
            return


def lease_key(name: str) -> str:
    return f"leases/{name}.json"


def stage_lease(stage: str, key: str) -> str:
    """Name of the lease of a stage in progress; runs' names hold no slash."""
    return f"stages/{stage}/{key}"


def describe_lease(name: str) -> str:
    """What a lease is of, as messages say it."""
    return name.replace("stages/", "stage ", 1) if name.startswith("stages/") else f"run {name}"


def first_token() -> int:
    """Where counting begins for a lease that is not there: the seconds since 1970.

    It may have been there, and been removed or damaged since, with a holder that goes on. This is beyond any token
    that was handed out, for a lease has fewer than one holder a second.
    """
    return int(time.time())


def encode(lease: Held) -> bytes:
    return encode_value(lease)


def parse(store: Store, name: str) -> tuple[bytes | None, Held | None]:
    """The lease's bytes and what they say; None twice if there never was one. Raises `CorruptArtifact`."""
    raw = store.get(lease_key(name))
    if raw is None:
        return None, None
    key = lease_key(name)
    remedy = f"To begin with a new lease, if nobody works on {describe_lease(name)}: {aside_command(key)}"
    return raw, decode_value(Held, raw, key, remedy)


def renew(store: Store, name: str, damaged: bytes) -> str | None:
    """Put a lease that nobody holds in place of a damaged one, which is kept under the name that is returned; None if
    it has changed meanwhile.

    The tokens that were handed out are not known any more: whoever held the lease has lost it.
    """
    free = Held(token=first_token(), holder=None, machine="", pid=0, started=None, clock=0.0, beat=0, pending=None)
    kept = set_aside(store, lease_key(name), damaged)
    return kept if store.compare_and_swap(lease_key(name), damaged, encode(free)) else None


def _current(store: Store, name: str, token: int) -> tuple[bytes, Held]:
    raw, held = parse(store, name)
    if raw is None or held is None or held.token != token or held.holder is None:
        holder = "nobody" if held is None else held.holder or "nobody"
        raise LeaseLost(
            f"{describe_lease(name)} (token {token}) is held by {holder} now: this process stood still for too "
            f"long, or gave it back. Nothing was committed. Stop here"
        )
    return raw, held


def _apply(store: Store, note: Pending | None) -> None:
    if note is not None:
        store.compare_and_swap(note.key, _to_bytes(note.expected), _to_bytes(note.data) or b"")


def _forget(store: Store, name: str, note: Pending) -> None:
    """Whoever holds the lease: the note has been carried out."""
    while True:
        raw, held = parse(store, name)
        if held is None or held.pending != note:
            return
        if store.compare_and_swap(lease_key(name), raw, encode(held.model_copy(update={"pending": None}))):
            return


def _to_text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _to_bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
