"""Knows the list of prompts that people have taken out: which ids, why, and what was decided about them when.

The list is a file of JSON lines that is only ever added to, made to be kept under git or DVC beside the prompts:
`{"action": "flag" or "unflag", "at": UTC time, "id": content id, "reason": text}`. The last line of an id holds.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cures_core.errors import ConfigError, DataRejected, MissingInput
from cures_core.failures import machine_failure
from cures_core.files import canonical_json, digest_json, write_atomic
from cures_core.prompts.defects import Flaw
from cures_core.prompts.identity import ID_HEX
from cures_core.prompts.promptset import PromptSet

MAX_REASON_CHARS = 500
_ID = re.compile(rf"[0-9a-f]{{{ID_HEX}}}")


def read_flags(path: Path) -> dict[str, str]:
    """Reason of every flagged id. Raises `MissingInput` where there is no list, `DataRejected` for a damaged line."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError as error:
        raise MissingInput(f"{path}: no list of flags; `cures data flag` makes one, or make an empty file") from error
    except OSError as error:
        raise machine_failure(error, path) or ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    active: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            action, prompt_id, reason = _parsed(f"{path}:{number}", line, need_action=True)
            active.pop(prompt_id, None)
            if action == "flag":
                active[prompt_id] = reason
    return dict(sorted(active.items()))


def flags_digest(flags: Mapping[str, str]) -> str:
    """The version of a list: equal flags and reasons, equal digest, whatever was flagged and unflagged in between."""
    return digest_json(dict(flags))


def requested(path: Path) -> list[tuple[str, str]]:
    """(id, reason) of a file of flags to set: JSON lines with `id` and `reason`. `DataRejected` names a bad line."""
    if not path.is_file():
        raise MissingInput(f'{path}: no such file; write one {{"id": ..., "reason": ...}} a line')
    lines = enumerate(path.read_bytes().splitlines(), 1)
    return [_parsed(f"{path}:{n}", line, need_action=False)[1:] for n, line in lines if line.strip()]


def add(path: Path, action: str, wanted: Iterable[tuple[str, str]]) -> int:
    """Write what is new among (id, reason) to the list, all or nothing, and say how many that were.

    `action` is flag or unflag; an id that is already as wanted is left alone. Raises `ConfigError` for something that
    is not a content id, for a missing reason, and for unflagging what is not flagged.
    """
    chosen = [_checked(action, prompt_id, reason) for prompt_id, reason in wanted]
    with _held(path):
        active = read_flags(path) if path.exists() else {}
        if action == "unflag" and (unknown := [i for i, _ in chosen if i not in active]):
            raise ConfigError(f"{path}: {unknown[0]} is not flagged; `cures data flags` lists what is")
        at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        rows = [
            {"action": action, "at": at, "id": prompt_id, "reason": reason}
            for prompt_id, reason in dict(chosen).items()
            if action == "unflag" or active.get(prompt_id) != reason
        ]
        if rows:
            before = path.read_bytes() if path.exists() else b""
            write_atomic(path, before + b"".join(canonical_json(row) + b"\n" for row in rows))
    return len(rows)


def flagged_rows(prompts: PromptSet, flags: Mapping[str, str]) -> Iterator[tuple[int, Flaw]]:
    """(index, flaw) of every prompt that the list takes out."""
    if flags:
        for i, prompt_id in enumerate(prompts.ids):
            if prompt_id in flags:
                yield i, ("flagged", flags[prompt_id][:80])


def _parsed(place: str, line: bytes, *, need_action: bool) -> tuple[str, str, str]:
    try:
        row = json.loads(line)
        action = row["action"] if need_action else "flag"
        found = str(action), str(row["id"]), str(row["reason"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataRejected(f"{place}: not a line of a list of flags ({type(error).__name__}: {error})") from error
    if found[0] not in ("flag", "unflag") or not _ID.fullmatch(found[1]):
        raise DataRejected(f"{place}: needs an action (flag or unflag) and a content id of {ID_HEX} hex digits")
    return found


def _checked(action: str, prompt_id: str, reason: str) -> tuple[str, str]:
    if not _ID.fullmatch(prompt_id):
        raise ConfigError(
            f"{ascii(prompt_id)[:60]}: not a content id ({ID_HEX} hex digits); `cures data import SET set.jsonl` "
            "and `cures curriculum explain` show them"
        )
    reason = " ".join(reason.split())
    if (action == "flag" and not reason) or len(reason) > MAX_REASON_CHARS:
        raise ConfigError(f"{prompt_id}: say why, in at most {MAX_REASON_CHARS} characters")
    return prompt_id, reason


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Two people who flag at once wait for one another; the folder is locked because the file is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
