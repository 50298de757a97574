"""`cures runs`: what ran, and how it ended."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError

app = typer.Typer(help="List and show runs.", no_args_is_help=True)
StoreUrl = Annotated[str, typer.Option("--store", help="Folder or s3://bucket/prefix of the store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_command(store: StoreUrl = ".cures", as_json: AsJson = False) -> None:
    """All runs of a store, the latest first."""
    from tasks.runs import run_names, run_overview
    from tasks.storage import open_store

    opened = open_store(StoreConfig(url=store))
    rows = sorted((run_overview(opened, name) for name in run_names(opened)), key=lambda r: r["at"], reverse=True)
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['run']}  {row['status']:<10} {row['at'][:19]}  {row['stages']} stages  {row['error']}".rstrip())
    if not rows:
        print(f"no runs in {store}; start one with: cures run --config configs/quickstart.toml")


@app.command("show")
def show_command(
    run: Annotated[str, typer.Argument(help="Run name, as `cures runs list` prints it.")],
    store: StoreUrl = ".cures",
    as_json: AsJson = False,
) -> None:
    """Stages of a run with their figures."""
    from tasks.runs import run_names, run_overview, stage_notes, stage_record
    from tasks.storage import open_store

    opened = open_store(StoreConfig(url=store))
    if run not in run_names(opened):
        raise ConfigError(f"no run {run} in {store}; `cures runs list --store {store}` names them")
    stages: list[dict[str, Any]] = []
    for note in stage_notes(opened, run):
        record = stage_record(opened, run, note["stage"], note["label"])
        figures = {} if record is None else record.figures
        seconds = 0.0 if record is None else record.seconds
        stages.append({**note, "seconds": seconds, "figures": figures})
    shown = {**run_overview(opened, run), "stages": stages}
    if as_json:
        print(json.dumps(shown))
        return
    print(f"{run}: {shown['status']} {shown['error']}".rstrip())
    for stage in stages:
        how = "cached" if stage["cached"] else f"{stage['seconds']:.1f} s"
        print(f"  {stage['stage']} {stage['label']}".rstrip() + f": {how} ({stage['key'][:12]})")
