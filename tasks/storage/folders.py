"""Folders of files as they are published: which names are allowed, and what a manifest says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from cures_core.errors import ConfigError, CorruptArtifact
from cures_core.manifest import read_manifest
from cures_core.names import check_file_name

Listed = dict[str, tuple[int, str]]
Stamps = dict[str, tuple[int, int, int, int]]


def parse_manifest(data: bytes | None, place: str, digest: str | None = None) -> Listed:
    """The files a manifest lists: name to (bytes, SHA-256).

    Raises `CorruptArtifact` if there is none, it cannot be read, or it is not the one with this SHA-256.
    """
    if data is None:
        raise CorruptArtifact(f"{place}: gone, so the files beside it were never finished or are being removed")
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise CorruptArtifact(f"{place}: not the manifest that was recorded (SHA-256 {digest[:12]}...)")
    try:
        return {check_file_name(name): (f.bytes, f.sha256) for name, f in read_manifest(data, place).items()}
    except ConfigError as error:
        raise CorruptArtifact(f"{place}: not a manifest ({error})") from error


def check_sizes(listed: Listed, found: Mapping[str, int], place: str) -> None:
    """Raise `CorruptArtifact` naming the first listed file that is not there with its size."""
    for name, (size, _) in sorted(listed.items()):
        if name not in found:
            raise CorruptArtifact(f"{place}/{name}: listed in the manifest, but gone")
        if found[name] != size:
            raise CorruptArtifact(f"{place}/{name}: {found[name]} bytes long, recorded were {size}")


def sizes_below(folder: Path) -> dict[str, int]:
    """Relative names of the files below a folder, with their sizes in bytes."""
    return {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


def stamps_below(folder: Path) -> Stamps:
    """What tells a file from a changed one without reading it: size, times of change of bytes and entry, inode."""
    found = {p.relative_to(folder).as_posix(): p.stat() for p in folder.rglob("*") if p.is_file()}
    return {name: (s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in found.items()}


def check_folder(folder: Path) -> None:
    """Refuse (`ConfigError`) to publish links and names that could not be fetched everywhere."""
    for path in sorted(folder.rglob("*")):
        check_file_name(path.relative_to(folder).as_posix())
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ConfigError(f"{path}: not a plain file; only files and folders can be published")
