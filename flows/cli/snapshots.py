"""`cures posterior diff|export|restore`: the versioned snapshots, by their tags."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Annotated

import typer

from cures_core.config.snapshot import SnapshotConfig
from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError
from cures_core.files import write_atomic
from flows.cli.runs import AsJson, StoreUrl

Tag = Annotated[str, typer.Argument(help="Tag of a snapshot, as posterior/RUN/EPOCH.")]
Endpoint = Annotated[str | None, typer.Option(help="S3 endpoint, for servers other than Amazon's.")]


def diff_command(
    before: Tag, after: Tag, store: StoreUrl = ".cures", endpoint_url: Endpoint = None, as_json: AsJson = False
) -> None:
    """What two snapshots disagree on: prompts, the largest change of each figure, lineage."""
    from tasks.snapshots import diff_snapshots

    places = _places(StoreConfig(url=store, endpoint_url=endpoint_url), before)
    if _places(StoreConfig(url=store, endpoint_url=endpoint_url), after) != places:
        raise ConfigError(f"{before} and {after} lie in different repositories; export both and compare the files")
    found = diff_snapshots(before, after, places)
    if as_json:
        print(json.dumps(dataclasses.asdict(found)))
        return
    print(
        f"{found.added:,} prompts added, {found.removed:,} removed, {found.changed:,} changed, {found.unchanged:,} not"
    )
    for name, size in found.largest_change.items():
        print(f"  largest change of {name}: {size:.6g}")
    for name, (old, new) in found.lineage.items():
        if name not in ("created_at", "versions"):
            print(f"  {name}: {old} -> {new}")


def export_command(
    tag: Tag,
    target: Annotated[Path, typer.Argument(help="A .parquet (the snapshot's own bytes), .csv or .jsonl file.")],
    store: StoreUrl = ".cures",
    endpoint_url: Endpoint = None,
) -> None:
    """Write a snapshot to a file, its digest checked."""
    from tasks.snapshots import read_snapshot

    if target.suffix not in (".parquet", ".csv", ".jsonl"):
        raise ConfigError(f"{target}: write to a .parquet, a .csv or a .jsonl file")
    data = read_snapshot(tag, _places(StoreConfig(url=store, endpoint_url=endpoint_url), tag))
    if target.suffix != ".parquet":
        import pandas as pd

        frame = pd.read_parquet(io.BytesIO(data))
        text = frame.to_csv(index=False) if target.suffix == ".csv" else frame.to_json(orient="records", lines=True)
        data = text.encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, data)
    print(f"{tag} written to {target}")


def restore_command(tag: Tag, store: StoreUrl = ".cures", endpoint_url: Endpoint = None) -> None:
    """Put a snapshot's data back where its DVC remote has lost or damaged it, from the store's copy.

    To train from an earlier posterior instead, set `prior.start_from` to its tag.
    """
    from tasks.snapshots.restoring import restore_snapshot
    from tasks.storage import open_store

    cfg = StoreConfig(url=store, endpoint_url=endpoint_url)
    places = _places(cfg, tag)
    restored = restore_snapshot(tag, open_store(cfg), places)
    print(f"{tag}: {'put back' if restored else 'whole, nothing to do'} ({places.remote})")


def _places(cfg: StoreConfig, tag: str) -> SnapshotConfig:
    from tasks.runs.opening import snapshot_places

    parts = tag.split("/")
    if len(parts) != 3 or parts[0] != "posterior" or not parts[2].partition(".")[0].isdigit():
        raise ConfigError(f"{tag}: not a snapshot's tag; they look like posterior/RUN/EPOCH")
    return snapshot_places(cfg, parts[1])
