"""Snapshots as they lie in git and in the DVC remote: found, listed, read and compared, without DVC."""

from __future__ import annotations

import dataclasses
import io
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cures_core.config.snapshot import SnapshotConfig
from cures_core.errors import ConfigError, CorruptArtifact, MissingInput
from cures_core.names import check_tag
from tasks.snapshots.objects import digest_md5, object_name, open_objects
from tasks.snapshots.pointers import DamagedReference, Pointers

_log = logging.getLogger(__name__)
DATA = "posterior.parquet"
POINTER = f"{DATA}.dvc"
LINEAGE = "lineage.json"


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A versioned posterior: its tag and commit, the MD5 and size of its Parquet file, the file's path in the
    repository, and the lineage it was published with."""

    tag: str
    commit: str
    md5: str
    size: int
    path: str
    lineage: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class SnapshotDiff:
    """What happened between two snapshots: numbers of prompts by content id, the largest change of each numeric
    column among prompts in both, and lineage entries as (before, after)."""

    added: int
    removed: int
    changed: int
    unchanged: int
    largest_change: Mapping[str, float]
    lineage: Mapping[str, tuple[Any, Any]]


def list_snapshots(cfg: SnapshotConfig) -> list[Snapshot]:
    """All snapshots, ordered by run and number, without those that are damaged in the repository (with a warning)."""
    with _open(cfg) as pointers:
        if pointers is None:
            return []
        tags = [ref.removeprefix("refs/tags/") for ref in pointers.refs("refs/tags/posterior/*")]
        tags.sort(key=_natural)
        try:
            return _load(pointers, tags) if tags else []
        except DamagedReference:
            return [found for tag in tags if (found := _whole(pointers, tag)) is not None]


def read_snapshot(tag: str, cfg: SnapshotConfig) -> bytes:
    """The posterior's Parquet file, checked against its digest.

    Raises `MissingInput` if there is no such tag, `CorruptArtifact` if the remote's bytes are gone or changed,
    `DamagedReference` if the repository's are.
    """
    snapshot = find_snapshot(tag, cfg)
    remote = cfg.remote or ""
    data = open_objects(remote, cfg.endpoint_url).read(snapshot.md5)
    if data is None or digest_md5(data) != snapshot.md5:
        fault = "is gone" if data is None else "has changed"
        raise CorruptArtifact(
            f"{tag}: {remote}/{object_name(snapshot.md5)} {fault}. Publish the same posterior again to restore it"
        )
    return data


def find_snapshot(tag: str, cfg: SnapshotConfig) -> Snapshot:
    """What is known of a tag. Raises `MissingInput` naming the last tags there are."""
    check_tag(tag)
    with _open(cfg) as pointers:
        found = None if pointers is None else load_snapshot(pointers, tag)
    if found is None:
        known = ", ".join(s.tag for s in list_snapshots(cfg)[-3:]) or "none"
        raise MissingInput(f"{tag}: no such snapshot in {cfg.repository}; the last ones there: {known}")
    return found


def diff_snapshots(before: str, after: str, cfg: SnapshotConfig) -> SnapshotDiff:
    """Compare two snapshots row by row, by content id."""
    import pandas as pd

    old, new = (pd.read_parquet(io.BytesIO(read_snapshot(tag, cfg))) for tag in (before, after))
    left, right = find_snapshot(before, cfg).lineage, find_snapshot(after, cfg).lineage
    changed = [name for name in sorted(left.keys() | right.keys()) if left.get(name) != right.get(name)]
    lineage = {name: (left.get(name), right.get(name)) for name in changed}
    return dataclasses.replace(diff_posteriors(old, new), lineage=lineage)


def diff_posteriors(old: Any, new: Any) -> SnapshotDiff:
    """Compare two posteriors as pandas frames, by the content ids in column `id`; missing values equal each other."""
    import numpy as np
    import pandas as pd

    old, new = old.set_index("id"), new.set_index("id")
    both = old.index.intersection(new.index)
    columns = [name for name in old.columns if name in new.columns]
    a, b = old.loc[both, columns], new.loc[both, columns]
    same = ((a == b) | (a.isna() & b.isna())).all(axis=1)
    numeric = [name for name in columns if pd.api.types.is_numeric_dtype(a[name]) and len(both)]
    return SnapshotDiff(
        added=len(new.index.difference(old.index)),
        removed=len(old.index.difference(new.index)),
        changed=int((~same).sum()),
        unchanged=int(same.sum()),
        largest_change={
            name: float(np.nan_to_num(np.abs(b[name].to_numpy(float) - a[name].to_numpy(float))).max())
            for name in numeric
        },
        lineage={},
    )


def load_snapshot(pointers: Pointers, tag: str) -> Snapshot | None:
    """The snapshot behind a tag; None if there is no such tag."""
    found = f"refs/tags/{tag}" in pointers.refs(f"refs/tags/{tag}")
    return _load(pointers, [tag])[0] if found else None


def place_of(tag: str) -> str:
    """Path of the Parquet file in the repository: one for all snapshots of a run, so that `dvc diff` compares them."""
    return f"{tag.rsplit('/', 1)[0]}/{DATA}"


def _whole(pointers: Pointers, tag: str) -> Snapshot | None:
    try:
        return load_snapshot(pointers, tag)
    except DamagedReference as error:
        _log.warning("%s", error)
        return None


def _load(pointers: Pointers, tags: list[str]) -> list[Snapshot]:
    pointers.fetch(*(f"refs/tags/{tag}" for tag in tags))
    names = [f"refs/tags/{tag}:{Path(place_of(tag)).parent}/{name}" for tag in tags for name in (POINTER, LINEAGE)]
    contents, commits = pointers.read(names), pointers.commits([f"refs/tags/{tag}" for tag in tags])
    return [
        _parse(tag, commit, pointer, lineage)
        for tag, commit, pointer, lineage in zip(tags, commits, contents[::2], contents[1::2], strict=True)
    ]


def _parse(tag: str, commit: str, pointer: bytes | None, lineage: bytes | None) -> Snapshot:
    text = (pointer or b"").decode(errors="replace")
    md5, size = re.search(r"^- md5: ([0-9a-f]{32})$", text, re.M), re.search(r"^  size: (\d+)$", text, re.M)
    if md5 is None or size is None or lineage is None:
        raise CorruptArtifact(
            f"{tag}: its commit {commit[:12]} lacks {POINTER} or {LINEAGE}; it was not made by this project"
        )
    try:
        described = TypeAdapter(dict[str, Any]).validate_json(lineage)
    except ValidationError as error:
        raise CorruptArtifact(f"{tag}: {LINEAGE} of its commit {commit[:12]} is not a JSON object") from error
    return Snapshot(tag, commit, md5[1], int(size[1]), place_of(tag), described)


@contextmanager
def _open(cfg: SnapshotConfig) -> Iterator[Pointers | None]:
    if cfg.repository is None or cfg.remote is None:
        raise ConfigError(
            "snapshot.repository and snapshot.remote: not filled in; use SnapshotConfig.within(store url)"
        )
    with tempfile.TemporaryDirectory(prefix="cures-snapshots-") as folder:
        pointers = Pointers(cfg.repository, Path(folder))
        yield pointers if pointers.exists() else None


def _natural(tag: str) -> list[tuple[int, str]]:
    """Sort key under which 10 comes after 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", tag) if part]
