"""Rows that a stage keeps while it is not done: JSON behind its SHA-256, so that damage between a kill and the resumed
stage is told, and the rows made again, instead of committed."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from pathlib import Path
from typing import Any

from cures_core.files import canonical_json, write_atomic

_log = logging.getLogger(__name__)


def sealed(rows: object) -> bytes:
    """The SHA-256 of the canonical JSON of `rows`, a line break, and that JSON."""
    data = canonical_json(rows)
    return hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def unsealed(data: bytes) -> Any | None:
    """The rows of `sealed`; None where these are not bytes that it wrote."""
    digest, _, rows = data.partition(b"\n")
    return json.loads(rows) if hashlib.sha256(rows).hexdigest().encode() == digest else None


def keep(path: Path, rows: object) -> None:
    """Write `rows` so that a crash leaves all of them or none."""
    write_atomic(path, sealed(rows))


def kept(path: Path) -> Any | None:
    """The rows in `path`; None where there are none. Damaged ones count as none, and stay under another name."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    rows = unsealed(data)
    if rows is None:
        aside = next(p for n in itertools.count(1) if not (p := path.with_name(f"{path.name}.damaged-{n}")).exists())
        path.rename(aside)
        _log.warning("%s: not what was written; it is %s now, and its rows are made again", path, aside.name)
    return rows
