"""`cures runs`: what ran, and how it ended."""

from __future__ import annotations

import datetime as dt
import json
import math
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError
from cures_core.report.accounts import HEADER, account_rows
from cures_core.report.comparison_page import ComparedRun, Comparison, reached_rows
from flows.cli.tables import as_table
from flows.cli.typed import as_typed

if TYPE_CHECKING:
    from tasks.runs.listing import Listed


class Order(StrEnum):
    """What a list of runs is ordered by: its columns."""

    STARTED = "started"
    RUN = "run"
    STATUS = "status"
    SCORE = "score"
    GAIN = "gain"
    TOOK = "took"


class Format(StrEnum):
    """How scores are printed."""

    TEXT = "text"
    JSON = "json"
    LM_EVAL = "lm-eval"


app = typer.Typer(help="List and show runs.", no_args_is_help=True)
StoreUrl = Annotated[str, typer.Option("--store", help="Folder or s3://bucket/prefix of the store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RUN_HELP = "Run name, as `cures runs list` prints it, or a beginning that only it has."
Run = Annotated[str, typer.Argument(help=RUN_HELP)]


@app.command("list")
def list_command(
    sort: Annotated[Order, typer.Option(help="Times and figures: the latest or largest first.")] = Order.STARTED,
    everything: Annotated[
        bool, typer.Option("--all", help="Runs of the flow `evaluate` and of benchmarks too, with what each is.")
    ] = False,
    store: StoreUrl = ".cures",
    as_json: AsJson = False,
) -> None:
    """Trainings of a store: how they ended, the last score and its gain, when they began, the time their own stages
    took, and how many stages were cached because other runs had done them."""
    from tasks.runs.listing import list_runs
    from tasks.storage import open_store

    found = list_runs(open_store(StoreConfig(url=store)))
    rows = in_order([row for row in found if everything or row.purpose == "training"], sort)
    if as_json:
        print(json.dumps([row.model_dump(mode="json") for row in rows]))
        return
    for line in listing_lines(rows, purposes=everything):
        print(as_typed(line))
    if not found:
        print(as_typed(f"no runs in {store}; start one with: cures run --config configs/quickstart.toml"))
    elif len(rows) < len(found):
        print(f"{len(found) - len(rows)} evaluations and benchmarks not shown: --all", file=sys.stderr)


def in_order(rows: Iterable[Listed], order: Order) -> list[Listed]:
    """Names and states by the alphabet; times and figures the latest or largest first, and what has none at the end."""
    by_name = sorted(rows, key=lambda row: row.run)
    match order:
        case Order.RUN:
            return by_name
        case Order.STATUS:
            return sorted(by_name, key=lambda row: row.status)
        case Order.STARTED:
            return sorted(by_name, key=lambda row: row.started or row.at, reverse=True)
        case Order.TOOK:
            return sorted(by_name, key=lambda row: row.seconds, reverse=True)
        case Order.SCORE:
            return sorted(by_name, key=lambda row: -math.inf if row.score is None else row.score, reverse=True)
        case Order.GAIN:
            return sorted(by_name, key=lambda row: -math.inf if row.gain is None else row.gain, reverse=True)


def listing_lines(rows: Sequence[Listed], *, purposes: bool) -> list[str]:
    """A table with a header; nothing where there are no rows. The last column, what went wrong, has a width of its
    own."""
    if not rows:
        return []
    header = ["run", *(["what"] if purposes else []), "status", "score", "gain", "started (UTC)", "took", "cached", ""]
    cells = [
        [
            row.run,
            *([row.purpose] if purposes else []),
            row.status,
            "-" if row.score is None else f"{row.suite} {row.score:.3f}",
            "-" if row.gain is None else f"{row.gain:+.3f}",
            row.started[:16].replace("T", " ") or "-",
            str(dt.timedelta(seconds=round(row.seconds))),
            f"{row.cached} of {row.stages}",
            row.error,
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)][:-1]
    lines = ([f"{cell:<{width}}" for cell, width in zip(line, [*widths, 0], strict=True)] for line in (header, *cells))
    return ["  ".join(line).rstrip() for line in lines]


@app.command("compare")
def compare_command(
    runs: Annotated[
        list[str], typer.Argument(help="Run names, or beginnings; the others are compared with the first.")
    ],
    out: Annotated[Path | None, typer.Option(help="Write an HTML page with the curves over each other.")] = None,
    store: StoreUrl = ".cures",
    as_json: AsJson = False,
) -> None:
    """Last scores of runs beside each other, paired where both answered the same items with the same settings."""
    from cures_core.report.comparison_page import render_comparison
    from tasks.runs.compare import compare_runs
    from tasks.runs.notes import find_run
    from tasks.storage import open_store

    opened = open_store(StoreConfig(url=store))
    found = compare_runs(opened, [find_run(opened, run) for run in runs])
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(render_comparison(found), encoding="utf-8")
    if as_json:
        print(found.model_dump_json())
        return
    for line in comparison_lines(found):
        print(line)
    if out is not None:
        print(out)


def comparison_lines(found: Comparison) -> list[str]:
    """A table for each suite, what it took to reach the first run's scores, accounts, then the settings that differ."""
    width = max(len(run.run) for run in found.runs)
    lines = []
    for suite in found.suites:
        scored = [run for run in found.runs if run.last(suite) is not None]
        lines += [f"{suite}:", *(f"  {run.run:<{width}}  {_compared(run, suite)}" for run in scored)]
    for target in found.targets:
        lines.append(f"paid to reach {target.score:.3f} on {target.suite} ({target.name} of {found.runs[0].run}):")
        lines += as_table(("run", *HEADER[1:]), reached_rows(found, target))
    lines.append("paid:")
    rows = [(run.run, *row) for run in found.runs for row in account_rows(run.cost, run.wasted)]
    lines += as_table(("run", *HEADER), rows, texts=2)
    ends = [f"{run.run} {run.entropy:.3g}" for run in found.runs if run.entropy is not None]
    lines += [f"entropy at the end, nats a token: {', '.join(ends)}"] if ends else []
    if found.settings:
        lines.append("settings that differ (equal letters: equal content):")
        lines += [f"  {key}: {' | '.join(values)}" for key, values in found.settings.items()]
    return lines


def _compared(run: ComparedRun, suite: str) -> str:
    score = run.last(suite)
    assert score is not None  # only runs that were scored are shown
    shown = f"avg@{score.k} {score.avg.value:.3f} [{score.avg.low:.3f}, {score.avg.high:.3f}] (n = {score.n})"
    if (best := score.pass_at.get(str(score.k))) and score.k > 1:
        shown += f", pass@{score.k} {best.value:.3f}"
    pair = run.pair(suite)
    if pair is None:
        return shown
    if pair.gain is None:
        return f"{shown}, not paired: {pair.why_not}"
    unlike = f", scored unlike: {'; '.join(pair.unlike)}" if pair.unlike else ""
    return f"{shown}, difference {pair.gain.value:+.3f} [{pair.gain.low:+.3f}, {pair.gain.high:+.3f}]{unlike}"


@app.command("scores")
def scores_command(
    run: Run,
    epoch: Annotated[
        int | None, typer.Option(help="The checkpoint after this epoch; 0: the base policy. Default: the last scored.")
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="text, json, or lm-eval (lm-evaluation-harness).")] = (
        Format.TEXT
    ),
    store: StoreUrl = ".cures",
) -> None:
    """Scores of one evaluation of a run; both JSON forms tell the settings too."""
    from tasks.runs.compare import lm_eval_of, scores_of
    from tasks.runs.notes import find_run
    from tasks.storage import open_store

    opened = open_store(StoreConfig(url=store))
    run = find_run(opened, run)
    if output is Format.LM_EVAL:
        print(json.dumps(lm_eval_of(opened, run, epoch), indent=2))
        return
    scores = scores_of(opened, run, epoch)
    if output is Format.JSON:
        print(json.dumps([score.model_dump(mode="json") for score in scores]))
        return
    for score in scores:
        figures = {f"avg@{score.k}": score.avg, **{f"pass@{j}": e for j, e in score.pass_at.items() if j != "1"}}
        figures |= {f"maj@{score.k}": score.majority} if score.majority else {}
        figures |= {"greedy": score.greedy} if score.greedy else {}
        shown = ", ".join(f"{name} {e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for name, e in figures.items())
        print(f"{score.suite}: {shown} (n = {score.n}, k = {score.k})")


@app.command("prune")
def prune_command(
    run: Run,
    keep_last: Annotated[int, typer.Option(min=1, help="Epochs that keep their weights and optimizer states.")] = 1,
    store: StoreUrl = ".cures",
    as_json: AsJson = False,
) -> None:
    """Delete checkpoints of earlier epochs; metrics and posteriors stay, and what a model name has ever pointed to."""
    from tasks.runs.notes import find_run
    from tasks.runs.prune import prune
    from tasks.storage import open_store

    opened = open_store(StoreConfig(url=store))
    run = find_run(opened, run)
    epochs = prune(opened, run, keep_last)
    if as_json:
        print(json.dumps({"run": run, "pruned": epochs}))
        return
    print(
        f"{run}: checkpoints deleted of epochs {', '.join(map(str, epochs))}" if epochs else f"{run}: nothing to delete"
    )


@app.command("show")
def show_command(
    run: Run,
    store: StoreUrl = ".cures",
    as_json: AsJson = False,
) -> None:
    """Stages of a run with their figures, where it came from, and how its settings were changed while it went on."""
    from tasks.runs.notes import changes_of, find_run, run_overview
    from tasks.runs.opening import fork_of
    from tasks.runs.stages import stages_of
    from tasks.storage import open_store

    opened = open_store(StoreConfig(url=store))
    run = find_run(opened, run)
    overview, fork, changed = run_overview(opened, run), fork_of(opened, run), changes_of(opened, run)
    stages = stages_of(opened, run)
    if as_json:
        shown = {
            **overview.model_dump(mode="json"),
            "fork": None if fork is None else fork.model_dump(mode="json"),
            "changes": [change.model_dump(mode="json", exclude={"config"}) for change in changed],
            "stages": [stage.model_dump(mode="json") for stage in stages],
        }
        print(json.dumps(shown))
        return
    print(as_typed(f"{run}: {overview.status} {overview.error}".rstrip()))
    if fork is not None:
        print(f"  {fork.words}")
    for change in changed:
        values = ", ".join(f"{key} {json.dumps(a)} -> {json.dumps(b)}" for key, (a, b) in change.settings.items())
        print(f"  changed {change.at[:19]}: {values}")
    for stage in stages:
        how = "cached, made before this run" if stage.cached else f"{stage.seconds:.1f} s"
        print(f"  {stage.stage} {stage.label}".rstrip() + f": {how} ({stage.key[:12]})")


@app.command("verify")
def verify_command(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Run names, as `cures runs list` prints them, or beginnings.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that the store holds.")] = False,
    store: StoreUrl = ".cures",
    as_json: AsJson = False,
) -> None:
    """Read all that runs have stored and check it by content: records, files, notes, pointers, snapshots and their
    objects at the DVC remote. Changes nothing; exit code 1 if something is damaged or gone, with what mends it."""
    from tasks.runs.notes import find_run
    from tasks.runs.verify import verify
    from tasks.storage import open_store

    if bool(runs) is everything:
        raise ConfigError("name runs to verify, or say --all")
    cfg = StoreConfig(url=store)
    opened = open_store(cfg)
    found = verify(cfg, None if everything else [find_run(opened, run) for run in runs or ()])
    if as_json:
        print(found.model_dump_json())
    else:
        print("checked: " + ", ".join(f"{number:,} {kind}" for kind, number in found.checked.items()))
        for finding in found.damaged:
            print(as_typed(f"{finding.place}\n  wrong: {finding.fault}\n  mend:  {finding.remedy}"))
        for note in found.notes:
            print(as_typed(f"{note.place}\n  note:  {note.fault}\n  do:    {note.remedy}"))
        for place in found.aside:
            print(f"{place}: damaged, replaced since, kept for you to look at")
        print(f"{len(found.damaged)} damaged or gone" if found.damaged else "all as it was written")
    if found.damaged:
        raise typer.Exit(1)


@app.command("set-aside")
def set_aside_command(
    place: Annotated[str, typer.Argument(help="Key in the store, as `cures runs verify` names it.")],
    store: StoreUrl = ".cures",
    as_json: AsJson = False,
) -> None:
    """Keep a damaged value that nothing writes again under damaged/, so that what reads it goes on without it. What is
    whole stays where it is, and nothing is deleted."""
    from tasks.runs.aside import set_place_aside
    from tasks.storage import open_store

    kept = set_place_aside(open_store(StoreConfig(url=store)), place)
    if as_json:
        print(json.dumps({"place": place, "kept": kept}))
        return
    for name in kept:
        print(f"{place}: kept as {name}")


@app.command("sweep")
def sweep_command(store: StoreUrl = ".cures", as_json: AsJson = False) -> None:
    """Delete what killed runs have left: unfinished work of stages that are committed by now, and files that no record
    names. Runs do so for themselves when they end."""
    from tasks.runs.orphans import sweep_orphans
    from tasks.stages.workspace import sweep
    from tasks.storage import open_store

    cfg = StoreConfig(url=store)
    opened = open_store(cfg)
    sweep(opened, Path(cfg.folder).absolute() / "scratch", cfg.lease_ttl_s)
    swept = sweep_orphans(opened)
    if as_json:
        print(json.dumps({"swept": swept}))
        return
    for prefix in swept:
        print(f"{prefix}: deleted")
    print(f"{len(swept)} deleted of files that no record names")
