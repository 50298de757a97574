"""`cures posterior`: what is believed about the prompts of a run."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from cures_core.config.storage import StoreConfig
from flows.cli.publish import publish_command
from flows.cli.runs import RUN_HELP, AsJson, StoreUrl
from flows.cli.snapshots import diff_command, export_command, restore_command

app = typer.Typer(help="Show, compare, export, restore and publish pass-rate posteriors.", no_args_is_help=True)
app.command("diff")(diff_command)
app.command("export")(export_command)
app.command("restore")(restore_command)
app.command("publish")(publish_command)


@app.command("show")
def show_command(
    run: Annotated[str, typer.Option("--run", help=RUN_HELP)],
    epoch: Annotated[int | None, typer.Option(help="After this epoch; 0 is the prior. Default: the latest.")] = None,
    store: StoreUrl = ".cures",
    as_json: AsJson = False,
) -> None:
    """Number of prompts, evidence, fitted prior, histogram of pass rates, and how good the predictions were."""
    from tasks.runs.summary import find_posterior, posterior_summary
    from tasks.storage import open_store

    cfg = StoreConfig(url=store)
    shown = posterior_summary(cfg, find_posterior(open_store(cfg), run), epoch)
    if as_json:
        print(json.dumps(shown))
        return
    for line in _lines(shown):
        print(line)


def _lines(shown: dict[str, Any]) -> list[str]:
    prior = shown["prior"]
    widest = max(1, *shown["histogram"])
    width = 1 / len(shown["histogram"])
    lines = [
        f"{shown['run']}, epoch {shown['epoch']}: {shown['prompts']:,} prompts, {shown['prompts_with_evidence']:,} "
        f"with evidence, {shown['evidence']:,.0f} rollouts remembered",
        f"fitted prior Beta({prior['a']:.2f}, {prior['b']:.2f}); {100 * shown['frontier_share']:.0f} % of the prompts "
        f"have an expected pass rate in 0.1..0.9, {100 * shown['dead_share']:.0f} % may be dead, "
        "never to be solved (in the mean over all; `cures curriculum hopeless` names those that are taken for it)",
    ]
    lines += [
        f"  {i * width:.2f} {'#' * round(50 * count / widest):<50} {count:,}"
        for i, count in enumerate(shown["histogram"])
    ]
    if "calibration" not in shown:
        return [*lines, "published from outside of the pipeline: its predictions are not on record"]
    names = {"mae": "mean absolute error", "pearson": "Pearson r", "brier": "Brier score"}
    calibration = shown["calibration"] or {}  # a figure that is not defined is not there
    parts = [f"{name} {calibration[key]:.3f}" for key, name in names.items() if key in calibration]
    lines.append(
        f"calibration of the last epoch: {', '.join(parts)}" if parts else "no verdict yet: no prediction was checked"
    )
    return lines
