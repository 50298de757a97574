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

Tag = Annotated[
    str, typer.Argument(help="Tag of a snapshot, as posterior/RUN/EPOCH; a beginning of RUN will do that only it has.")
]
Endpoint = Annotated[str | None, typer.Option(help="S3 endpoint, for servers other than Amazon's.")]


def diff_command(
    before: Tag, after: Tag, store: StoreUrl = ".cures", endpoint_url: Endpoint = None, as_json: AsJson = False
) -> None:
    """What two snapshots disagree on: prompts, the largest change of each figure, lineage."""
    from tasks.snapshots import diff_snapshots

    cfg = StoreConfig(url=store, endpoint_url=endpoint_url)
    before, after = _in_full(cfg, before), _in_full(cfg, after)
    places = _places(cfg, before)
    if _places(cfg, after) != places:
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
    cfg = StoreConfig(url=store, endpoint_url=endpoint_url)
    tag = _in_full(cfg, tag)
    data = read_snapshot(tag, _places(cfg, tag))
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
    tag = _in_full(cfg, tag)
    places = _places(cfg, tag)
    restored = restore_snapshot(tag, open_store(cfg), places)
    print(f"{tag}: {'put back' if restored else 'whole, nothing to do'} ({places.remote})")


def _places(cfg: StoreConfig, tag: str) -> SnapshotConfig:
    from tasks.runs.opening import snapshot_places

    return snapshot_places(cfg, _run_of(tag))


def _in_full(cfg: StoreConfig, tag: str) -> str:
    """The tag with the run's whole name. What this store knows nothing of may have snapshots all the same."""
    from tasks.runs.notes import run_names
    from tasks.runs.summary import find_posterior
    from tasks.snapshots.published import published_names
    from tasks.storage import open_store

    run, store = _run_of(tag), open_store(cfg)
    if not any(name.startswith(run) for name in (*run_names(store), *published_names(store))):
        return tag
    return f"posterior/{find_posterior(store, run)}/{tag.rpartition('/')[2]}"


def _run_of(tag: str) -> str:
    parts = tag.split("/")
    if len(parts) != 3 or parts[0] != "posterior" or not parts[2].partition(".")[0].isdigit():
        raise ConfigError(f"{tag}: not a snapshot's tag; they look like posterior/RUN/EPOCH")
    return parts[1]
