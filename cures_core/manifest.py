"""A folder of files that is complete exactly when its manifest is there and every byte matches it."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, ValidationError

from cures_core.config.base import Strict
from cures_core.errors import CorruptArtifact
from cures_core.files import canonical_json, digest_file, write_atomic

MANIFEST = "manifest.json"


class ListedFile(Strict):
    """What a manifest says of a file."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(Strict):
    """`manifest.json`: the files below its folder, by their relative names."""

    format: int = Field(default=1, alias="schema")
    files: dict[str, ListedFile]


def read_manifest(data: bytes, place: str) -> dict[str, ListedFile]:
    """The files that a manifest lists. Raises `CorruptArtifact` naming `place` where it is none."""
    try:
        return Manifest.model_validate_json(data).files
    except ValidationError as error:
        raise CorruptArtifact(f"{place}: not a manifest ({error.errors(include_url=False)[0]['msg']})") from error


def write_manifest(folder: Path) -> str:
    """Flush all files below `folder`, then write `manifest.json` (size and SHA-256 of each); returns its digest."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST):
        with path.open("rb") as f:
            os.fsync(f.fileno())
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest_file(path)}
    write_atomic(folder / MANIFEST, canonical_json({"schema": 1, "files": files}))
    return digest_file(folder / MANIFEST)


def verify_manifest(folder: Path) -> str:
    """Check every file against the manifest and return the manifest's digest.

    Raises `CorruptArtifact` naming the first file that is missing, changed or not listed.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise CorruptArtifact(f"{folder}: no {MANIFEST}, so the folder was never finished")
    listed = read_manifest(path.read_bytes(), str(path))
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST}
    # Manifests of inner folders were not listed at first.
    if extra := sorted(name for name in present - listed.keys() if not name.endswith(f"/{MANIFEST}")):
        raise CorruptArtifact(f"{folder / extra[0]}: not in the manifest")
    for name, entry in sorted(listed.items()):
        file = folder / name
        if name not in present:
            raise CorruptArtifact(f"{file}: listed in the manifest, but gone")
        if file.stat().st_size != entry.bytes or digest_file(file) != entry.sha256:
            raise CorruptArtifact(f"{file}: bytes do not match the manifest")
    return digest_file(path)
