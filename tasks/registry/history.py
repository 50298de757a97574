"""The model registry: what a name `models/<model>` points to, and its whole history, in one value of the store.

Pointer and history change together by compare-and-swap: of many writers one wins, and none can lose another's entry.
"""

from __future__ import annotations

import datetime as dt
import getpass
import json
import os
from collections.abc import Callable, Mapping
from typing import Literal

from cures_core.config.base import Strict
from cures_core.errors import ConfigError, CorruptArtifact, TryAgain
from cures_core.files import canonical_json
from tasks.storage import Store
from tasks.storage.values import SEAL, decode_value, encode_value

SCHEMA = 1

Swap = Callable[[str, bytes, bytes | None], bool]
"""How a pointer is written: (key, value, the value it must have now); false where it has another."""


class Entry(Strict):
    """One move of the pointer."""

    version: int
    """1, 2, 3 ...: its place in the history."""
    action: Literal["promoted", "override", "rolled back"] = "promoted"
    """`promoted` by the gate, `override` by a person against it, `rolled back` to an earlier version."""
    run: str
    """Run that made the model."""
    state: str
    """Record `stage/key` of its last checkpoint."""
    weights: str = ""
    """Digest of its weights; "" in entries of versions that did not note it."""
    policy: str
    """Record of the base policy."""
    evaluation: str
    """Record of its scores."""
    reasons: tuple[str, ...] = ()
    """What the gate said."""
    who: str = ""
    """Who moved the pointer."""
    why: str = ""
    """Why, in their words."""
    at: str = ""
    """UTC time, ISO 8601."""
    restores: int | None = None
    """A rollback: the version whose model this is again. None for a new model."""

    @property
    def model_version(self) -> int:
        """The version that first brought this model."""
        return self.version if self.restores is None else self.restores


class Pointer(Strict):
    """A model name with its history, oldest first; the last entry is the current model."""

    schema_version: int = SCHEMA
    """Format of this value."""
    history: tuple[Entry, ...]
    """Never empty."""

    @property
    def current(self) -> Entry:
        return self.history[-1]

    def entry(self, version: int) -> Entry:
        """Raises `ConfigError` for a version that is not there."""
        if not 1 <= version <= len(self.history):
            raise ConfigError(f"version {version}: there are 1 to {len(self.history)}")
        return self.history[version - 1]


def pointer_key(model: str) -> str:
    """Where the store keeps what a model name points to."""
    return f"models/{model}.json"


def model_names(store: Store) -> list[str]:
    return [key.removeprefix("models/").removesuffix(".json") for key in store.list("models")]


def read_pointer(store: Store, model: str) -> tuple[bytes | None, Pointer | None]:
    """The stored bytes, to swap against, and what they say; (None, None) for a name that was never promoted.

    Raises `CorruptArtifact` for a value of another format.
    """
    raw = store.get(pointer_key(model))
    return raw, None if raw is None else _parsed(raw, model)


def existing_pointer(store: Store, model: str) -> tuple[bytes, Pointer]:
    """As `read_pointer`, for a name that must be there. Raises `ConfigError` naming those that are."""
    raw, pointer = read_pointer(store, model)
    if raw is None or pointer is None:
        raise ConfigError(f"no model {model} in this store; models there: {', '.join(model_names(store)) or 'none'}")
    return raw, pointer


def move(swap: Swap, model: str, raw: bytes | None, entry: Mapping[str, object]) -> Entry | None:
    """Append `entry` (an `Entry` without version and time) if the value is still `raw`; None if others were first.

    A run moves pointers by the commits of its lease: one that was paused past it moves nothing any more.
    """
    old = () if raw is None else _parsed(raw, model).history
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    made = Entry.model_validate({"version": len(old) + 1, "at": now, **entry})
    return made if swap(pointer_key(model), encode_value(Pointer(history=(*old, made))), raw) else None


def by_a_person(store: Store) -> Swap:
    """For moves that no run makes: whoever asks has looked at the value just now, so nothing has to be fenced off."""
    return lambda key, data, expected: store.compare_and_swap(key, expected, data)


def roll_back(store: Store, model: str, to: int | None, who: str, why: str) -> Entry:
    """Point `model` at an earlier version again; None: at the model before the current one.

    The history only grows: a rollback is an entry of its own. Raises `ConfigError` where there is nothing to go back
    to, and `TryAgain` if the pointer is moved by someone else meanwhile: what to undo may be another thing now.
    """
    raw, pointer = existing_pointer(store, model)
    target = rollback_target(pointer, model, to)
    again = target.model_dump(exclude={"version", "at", "action", "who", "why", "restores"})
    note = {"action": "rolled back", "who": who, "why": why, "restores": target.model_version}
    made = move(by_a_person(store), model, raw, {**again, **note})
    if made is None:
        raise TryAgain(f"{pointer_key(model)} was moved by someone else just now; look at it, then try again")
    return made


def rollback_target(pointer: Pointer, model: str, to: int | None) -> Entry:
    """The version to go back to; None: the model before the current one. Raises `ConfigError` where there is none."""
    now = pointer.current
    if to is None:
        if not (earlier := [e for e in pointer.history[: now.model_version - 1] if e.state != now.state]):
            raise ConfigError(f"{model}: nothing before version {now.model_version} to go back to")
        return earlier[-1]
    target = pointer.entry(to)
    if target.state == now.state:
        raise ConfigError(f"{model}: version {to} is the current model already")
    return target


def this_user() -> str:
    """Name of who runs this process, for the history."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def _parsed(raw: bytes, model: str) -> Pointer:
    key = pointer_key(model)
    remedy = (
        f"To begin its history anew, the damaged one kept aside: cures promote RUN --model {model} --override --why ..."
    )
    pointer = decode_value(Pointer, _with_history(raw), key, remedy)
    if pointer.schema_version != SCHEMA or not pointer.history:
        raise CorruptArtifact(f"{key}: pointer of schema {pointer.schema_version}, this version reads {SCHEMA}")
    return pointer


def _with_history(raw: bytes) -> bytes:
    """A value as it was written before there was a history, made into one of today."""
    try:
        value = json.loads(raw)
    except ValueError:
        return raw
    if not isinstance(value, dict) or "history" in value or SEAL in value:
        return raw
    value.pop("previous", None)
    return canonical_json({"schema_version": SCHEMA, "history": [{"version": 1, **value}]})
