"""`cures curriculum`: why prompts are drawn as they are, and which of them look hopeless."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cures_core.config.storage import StoreConfig
from flows.cli.runs import RUN_HELP, AsJson, StoreUrl

app = typer.Typer(help="Explain the curriculum.", no_args_is_help=True)


@app.command("explain")
def explain_command(
    run: Annotated[str, typer.Option("--run", help=RUN_HELP)],
    prompt: Annotated[str | None, typer.Option(help="Content id. Default: the most and the least drawn.")] = None,
    epoch: Annotated[int | None, typer.Option(help="After this epoch; 0 is the prior. Default: the latest.")] = None,
    store: StoreUrl = ".cures",
    as_json: AsJson = False,
) -> None:
    """Say in words and numbers why a prompt gets its probability and its rollouts."""
    from tasks.runs.explain import explain
    from tasks.runs.summary import find_posterior
    from tasks.storage import open_store

    cfg = StoreConfig(url=store)
    shown = explain(cfg, find_posterior(open_store(cfg), run), epoch, prompt)
    if as_json:
        print(json.dumps(shown))
        return
    for one in shown:
        print(f"{one['id']}  {one['problem'][:80]}")
        for line in one["words"]:
            print(f"  {line}")


@app.command("hopeless")
def hopeless_command(
    run: Annotated[str, typer.Option("--run", help=RUN_HELP)],
    least: Annotated[float, typer.Option(min=0, max=1, help="Least probability of being dead.")] = 0.95,
    epoch: Annotated[int | None, typer.Option(help="After this epoch; 0 is the prior. Default: the latest.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write proposals here, as JSON lines that `cures data flag --from` takes.")
    ] = None,
    store: StoreUrl = ".cures",
    as_json: AsJson = False,
) -> None:
    """List prompts that no rollout has ever solved although their group succeeds, with the evidence: look at them."""
    from tasks.runs.explain import propose_flags
    from tasks.runs.summary import find_posterior
    from tasks.storage import open_store

    cfg = StoreConfig(url=store)
    found = propose_flags(cfg, find_posterior(open_store(cfg), run), epoch, least)
    if out is not None:
        lines = (json.dumps({"id": one["id"], "reason": one["reason"]}) + "\n" for one in found)
        out.write_text("".join(lines), encoding="utf-8")
    if as_json:
        print(json.dumps(found))
        return
    for one in found:
        print(f"{one['id']}  {one['problem'][:80]!r} -> {one['answer']!r}")
        print(f"  {one['reason']}")
    print(f"{len(found):,} prompts" + ("" if out is None else f", written to {out}"))
