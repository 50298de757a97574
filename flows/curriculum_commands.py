"""`cures curriculum`: why prompts are drawn as they are."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cures_core.config.storage import StoreConfig
from flows.runs_commands import AsJson, StoreUrl

app = typer.Typer(help="Explain the curriculum.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `explain` a command of its own."""


@app.command("explain")
def explain_command(
    run: Annotated[str, typer.Option("--run", help="Run name, as `cures runs list` prints it.")],
    prompt: Annotated[str | None, typer.Option(help="Content id. Default: the most and the least drawn.")] = None,
    epoch: Annotated[int | None, typer.Option(help="After this epoch; 0 is the prior. Default: the latest.")] = None,
    store: StoreUrl = ".cures",
    as_json: AsJson = False,
) -> None:
    """Say in words and numbers why a prompt gets its probability and its rollouts."""
    from tasks.explanation import explain

    shown = explain(StoreConfig(url=store), run, epoch, prompt)
    if as_json:
        print(json.dumps(shown))
        return
    for one in shown:
        print(f"{one['id']}  {one['problem'][:80]}")
        for line in one["words"]:
            print(f"  {line}")
