"""Folders of files as they are published: which names are allowed, and what a manifest says of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from cures_core.errors import ConfigError, CorruptArtifact
from cures_core.names import check_file_name

Listed = dict[str, tuple[int, str]]


def parse_manifest(data: bytes | None, place: str, digest: str | None = None) -> Listed:
    """The files a manifest lists: name to (bytes, SHA-256).

    Raises `CorruptArtifact` if there is none, it cannot be read, or it is not the one with this SHA-256.
    """
    if data is None:
        raise CorruptArtifact(f"{place}: gone, so the files beside it were never finished or are being removed")
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise CorruptArtifact(f"{place}: not the manifest that was recorded (SHA-256 {digest[:12]}...)")
    try:
        files = json.loads(data)["files"]
        return {check_file_name(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifact(f"{place}: not a manifest") from error


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


def check_folder(folder: Path) -> None:
    """Refuse (`ConfigError`) to publish links and names that could not be fetched everywhere."""
    for path in sorted(folder.rglob("*")):
        check_file_name(path.relative_to(folder).as_posix())
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ConfigError(f"{path}: not a plain file; only files and folders can be published")
