"""Files that are whole or absent: atomic writes, digests, canonical JSON."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from pathlib import Path

from cures_core.errors import ConfigError


def canonical_json(value: object) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_json(value: object) -> str:
    """SHA-256 of the canonical JSON, hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def digest_folder(folder: Path) -> str:
    """SHA-256 over the relative names and contents of all files below a folder, hex."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return digest_json([[name, digest_file(folder / name)] for name in names])


def found_below(folder: Path, pattern: str) -> list[Path]:
    """What matches a pattern, as of `Path.glob`, in order, hidden names left out. What others delete meanwhile is not
    there, where `Path.glob` may raise."""
    return sorted(folder / name for name in glob.glob(pattern, root_dir=folder))  # noqa: PTH207


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data` so that a reader, or a crash at any moment, finds the old bytes or the new ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)  # half a file would take the room that the disk lacks
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def require_writable(path: Path, key: str) -> None:
    """Raises `ConfigError` naming the key of the configuration where no folder can be made or written to at `path`."""
    place = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not place.is_dir():
        raise ConfigError(f"{key}: {place} is a file; name a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"{key}: no permission to write to {place}; change it, or name another place")
