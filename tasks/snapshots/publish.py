"""A posterior becomes a snapshot: data to the DVC remote first and read back, then the pointer in git."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cures_core.config.snapshot import SnapshotConfig
from cures_core.errors import ConfigError, CorruptArtifact, StoreUnavailable
from cures_core.faults import fault_point
from cures_core.names import check_tag
from tasks.runs.figures import SnapshotFigures
from tasks.snapshots.commands import dvc
from tasks.snapshots.objects import digest_md5, object_name, open_objects
from tasks.snapshots.pointers import DamagedReference, Pointers
from tasks.snapshots.reading import DATA, LINEAGE, POINTER, Snapshot, load_snapshot, place_of

_log = logging.getLogger(__name__)
_PASSING = ("created_at", "versions")  # may differ when the same snapshot is published again


def publish_snapshot(
    parquet: Path, lineage: Mapping[str, object], tag: str, cfg: SnapshotConfig, scratch: Path
) -> SnapshotFigures:
    """Version a posterior under `tag` (`posterior/<run>/<k>`) and say where it lies.

    `lineage` is JSON: parent, policy, data and configuration digests, versions; its `created_at` (ISO 8601) dates the
    commit. `cfg` names both places (`SnapshotConfig.within`). `scratch` is used and cleared.

    Publishing the same again returns the same record, and restores the data if the remote has lost it. Killed at any
    point, the tag is there with its data, or not at all. A tag that is damaged in a repository in a folder is made
    again. Raises `ConfigError` if the tag holds another posterior or
    lineage, `CorruptArtifact` if the remote does not give back what it got, `StoreUnavailable` if git or DVC fail.
    """
    repository, remote = _places(cfg)
    check_tag(tag)
    data = parquet.read_bytes()
    wanted = Snapshot(tag, "", digest_md5(data), len(data), place_of(tag), dict(lineage))
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="snapshot-", dir=scratch) as folder:
        pointers = Pointers(repository, Path(folder))
        pointers.create(cfg.branch)
        held = _held(pointers, tag)
        if held is None:
            held = _publish_new(data, wanted, cfg, pointers, Path(folder))
        else:
            _check_same(held, wanted)
            if open_objects(remote, cfg.endpoint_url).read(wanted.md5) != data:
                _push_data(data, wanted, cfg, Path(folder))
    return SnapshotFigures(tag=tag, commit=held.commit, md5=held.md5, size=held.size, remote=remote, path=held.path)


def _held(pointers: Pointers, tag: str) -> Snapshot | None:
    """What a tag holds; None where there is none, or the repository's copy of it is damaged: then it is removed."""
    try:
        return load_snapshot(pointers, tag)
    except DamagedReference as error:
        ref = f"refs/tags/{tag}"
        _log.warning("%s It is published again", error)
        pointers.forget(ref, pointers.refs(ref)[ref])
        return None


def _publish_new(data: bytes, wanted: Snapshot, cfg: SnapshotConfig, pointers: Pointers, folder: Path) -> Snapshot:
    """Data, then pointer; returns what the tag holds in the end, which a concurrent publisher may have made."""
    repository, remote = _places(cfg)
    pointer = _push_data(data, wanted, cfg, folder)
    fault_point("snapshot.before_pointer", wanted.tag)
    place = Path(wanted.path).parent
    files = {
        ".dvc/config": dvc_config(remote, cfg.endpoint_url).encode(),
        f"{place}/{POINTER}": pointer,
        f"{place}/{LINEAGE}": _json(wanted.lineage),
    }
    message = f"{wanted.tag}\n\n{DATA}: {wanted.size} bytes, md5 {wanted.md5}\n"
    commit = pointers.publish(cfg.branch, wanted.tag, files, message, _date(wanted.lineage))
    if commit is not None:
        return dataclasses.replace(wanted, commit=commit)
    held = load_snapshot(pointers, wanted.tag)
    if held is None:
        raise StoreUnavailable(f"{wanted.tag}: was there and is gone. Is somebody deleting tags in {repository}?")
    _check_same(held, wanted)
    return held


def dvc_config(remote: str, endpoint_url: str | None) -> str:
    """The `.dvc/config` of snapshots, so that `dvc get REPOSITORY PATH --rev TAG` finds the data."""
    lines = [
        "[core]",
        "    analytics = false",
        "    check_update = false",
        "    autostage = false",
        "    remote = posteriors",
    ]
    lines += ["['remote \"posteriors\"']", f"    url = {remote}"]
    if endpoint_url is not None and remote.startswith("s3://"):
        lines.append(f"    endpointurl = {endpoint_url}")
    return "\n".join(lines) + "\n"


def _places(cfg: SnapshotConfig) -> tuple[str, str]:
    if cfg.repository is None or cfg.remote is None:
        raise ConfigError(
            "snapshot.repository and snapshot.remote: not filled in; use SnapshotConfig.within(store url)"
        )
    remote = cfg.remote if cfg.remote.startswith("s3://") else str(Path(cfg.remote).absolute())
    if "\n" in remote or '"' in remote or "#" in remote:
        raise ConfigError(f"snapshot.remote: {remote!r} cannot be written into DVC's configuration")
    return cfg.repository, remote


def _push_data(data: bytes, wanted: Snapshot, cfg: SnapshotConfig, folder: Path) -> bytes:
    """Make sure the remote holds the data; returns DVC's pointer file."""
    _, remote = _places(cfg)
    work = folder / "data"
    (work / ".dvc").mkdir(parents=True)
    (work / ".dvc" / "config").write_text(dvc_config(remote, cfg.endpoint_url))
    (work / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    (work / DATA).write_bytes(data)
    objects = open_objects(remote, cfg.endpoint_url)
    for last in (False, True):
        dvc(work, "add", DATA, "--then", "push", POINTER)
        fault_point("snapshot.after_push", wanted.tag)
        if objects.read(wanted.md5) == data:
            objects.flush(wanted.md5)
            return (work / POINTER).read_bytes()
        if not last:
            objects.remove(wanted.md5)  # DVC goes by the name and would never replace damaged bytes
    raise CorruptArtifact(
        f"{remote}/{object_name(wanted.md5)}: reads back other bytes than were pushed, twice. Check the remote; "
        f"{wanted.tag} was not published"
    )


def _check_same(held: Snapshot, wanted: Snapshot) -> None:
    if (held.md5, held.size) != (wanted.md5, wanted.size):
        raise ConfigError(
            f"{held.tag}: holds another posterior (md5 {held.md5}, {held.size} bytes) than this one (md5 {wanted.md5}, "
            f"{wanted.size} bytes). Snapshots are never replaced: publish under another run name"
        )
    theirs, ours = json.loads(_json(held.lineage)), json.loads(_json(wanted.lineage))
    for name in sorted((theirs.keys() | ours.keys()) - set(_PASSING)):
        if theirs.get(name) != ours.get(name):
            raise ConfigError(
                f"{held.tag}: holds this posterior with another lineage: {name} is {theirs.get(name)!r} there, "
                f"{ours.get(name)!r} here. Publish under another run name"
            )


def _json(value: Mapping[str, object]) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _date(lineage: Mapping[str, object]) -> str:
    """Git's spelling of `created_at`: the commit, too, is the same when it is made again."""
    text = lineage.get("created_at")
    if text is None:
        return "@946684800 +0000"
    try:
        moment = dt.datetime.fromisoformat(str(text))
    except ValueError as error:
        raise ConfigError(f"lineage.created_at: {text!r} is not an ISO 8601 time") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return f"@{int(moment.timestamp())} +0000"
