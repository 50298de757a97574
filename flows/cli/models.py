"""`cures models`, `cures promote`, `cures rollback`: which model a name points to, since when, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError, CorruptArtifact
from flows.cli.typed import as_typed

app = typer.Typer(help="List, show and export promoted models.", no_args_is_help=True)
StoreUrl = Annotated[str, typer.Option("--store", help="Folder or s3://bucket/prefix of the store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Who = Annotated[str | None, typer.Option(help="Who decides this; default: the user of this process.")]
Model = Annotated[str, typer.Argument(help="Model name, as `cures models list` prints it.")]


@app.command("list")
def list_command(store: StoreUrl = ".cures", as_json: AsJson = False) -> None:
    """All model names of a store with the model they point to, or what is wrong with the pointer."""
    from tasks.registry.history import existing_pointer, model_names
    from tasks.storage import open_store

    opened = open_store(StoreConfig(url=store))
    rows: list[dict[str, object]] = []
    for name in model_names(opened):
        try:
            rows.append({"model": name, **existing_pointer(opened, name)[1].current.model_dump()})
        except CorruptArtifact as damage:
            rows.append({"model": name, "damaged": str(damage)})
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        if "damaged" in row:
            print(as_typed(f"{row['model']}  damaged: {row['damaged']}"))
            continue
        print(f"{row['model']}  version {row['version']}  {row['action']} {row['at']} by {row['who']}  {row['run']}")
    if not rows:
        print(as_typed(f"no models in {store}; a run with [promotion] makes one, or: cures promote RUN"))


@app.command("show")
def show_command(model: Model, store: StoreUrl = ".cures", as_json: AsJson = False) -> None:
    """The history of a model name, the latest last, and whether the weights are there (exit code 1 if those of the
    current version are not)."""
    from tasks.registry.history import existing_pointer
    from tasks.registry.weights import weights_fault
    from tasks.storage import open_store

    opened = open_store(StoreConfig(url=store))
    _, pointer = existing_pointer(opened, model)
    faults = {entry.version: weights_fault(opened, entry) for entry in pointer.history}
    if as_json:
        damaged = {version: fault for version, fault in faults.items() if fault}
        print(json.dumps({"model": model, **pointer.model_dump(mode="json"), "damaged": damaged}))
    for entry in pointer.history if not as_json else ():
        again = "" if entry.restores is None else f" to version {entry.restores}"
        print(f"version {entry.version}: {entry.action}{again} {entry.at} by {entry.who or 'unknown'}: {entry.why}")
        print(f"  run {entry.run}, {entry.state}")
        for reason in entry.reasons:
            print(f"  {reason}")
        weights = f"  weights {entry.weights[:12] or 'of an unknown digest'}: {faults[entry.version] or 'in place'}"
        print(as_typed(weights))
    if faults[pointer.current.version]:
        raise typer.Exit(1)


@app.command("export")
def export_command(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    version: Annotated[int | None, typer.Option(help="Version to export; default: the current one.")] = None,
    store: StoreUrl = ".cures",
) -> None:
    """Write a promoted model as a normal Hugging Face folder with a model card; prints its path."""
    from tasks.registry.export import export_model
    from tasks.storage import open_store

    export_model(open_store(StoreConfig(url=store)), model, version, out)
    print(out)


def promote_command(
    run: Annotated[
        str, typer.Argument(help="Finished run, as `cures runs list` prints it, or a beginning that only it has.")
    ],
    model: Annotated[str | None, typer.Option(help="Pointer to move; default: the run's promotion.model.")] = None,
    why: Annotated[str, typer.Option(help="Why, for the history.")] = "",
    who: Who = None,
    override: Annotated[
        bool, typer.Option("--override", help="Move it even if the gate says no; needs --why.")
    ] = False,
    store: StoreUrl = ".cures",
    as_json: AsJson = False,
) -> None:
    """Ask the gate about a finished run, and move the pointer if it says yes (exit code 1 if no)."""
    from tasks.registry.history import this_user
    from tasks.registry.promotion_by_hand import promote_run
    from tasks.runs.notes import find_run
    from tasks.storage import open_store

    if override and not why.strip():
        raise ConfigError("--override goes against the gate: say why with --why")
    opened = open_store(StoreConfig(url=store))
    decision = promote_run(
        opened, find_run(opened, run), model, who or this_user(), why or "asked for", override=override
    )
    if as_json:
        print(decision.model_dump_json())
    else:
        outcome = "promoted" if decision.promoted else "not promoted"
        print(f"{decision.model}: {outcome} over {decision.incumbent}")
        for reason in decision.reasons:
            print(f"  {reason}")
    if not decision.promoted:
        raise typer.Exit(1)


def rollback_command(
    model: Model,
    why: Annotated[str, typer.Option(help="Why, for the history.")],
    to: Annotated[int | None, typer.Option(help="Version to go back to; default: the one before.")] = None,
    who: Who = None,
    store: StoreUrl = ".cures",
    as_json: AsJson = False,
) -> None:
    """Point a model name at an earlier version again; the history keeps both."""
    from tasks.registry.history import this_user
    from tasks.registry.weights import checked_roll_back
    from tasks.storage import open_store

    entry = checked_roll_back(open_store(StoreConfig(url=store)), model, to, who or this_user(), why)
    if as_json:
        print(json.dumps({"model": model, **entry.model_dump(mode="json")}))
        return
    print(f"{model}: version {entry.version} is version {entry.restores} again ({entry.run})")
