"""`cures bench`: what a machine can do, to size it by. The project's own claims are measured in benchmarks/."""

from __future__ import annotations

import json
from typing import Annotated

import typer

app = typer.Typer(help="Measure this machine.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.callback()
def _bench() -> None:
    """Makes the name of the one measurement a command."""


@app.command("throughput")
def throughput_command(
    engine: Annotated[str, typer.Option(help="hf, vllm or vllm_server.")] = "hf",
    model: Annotated[str, typer.Option(help="Folder or name of a model; empty: a small random Llama.")] = "",
    prompts: Annotated[int, typer.Option(min=1, help="Prompts of mixed lengths.")] = 32,
    n: Annotated[int, typer.Option(min=1, help="Rollouts of each.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a completion.")] = 128,
    decoding: Annotated[str, typer.Option(help="Of the engine hf: auto, eager or static.")] = "auto",
    repeats: Annotated[int, typer.Option(min=1, help="The best of so many counts.")] = 3,
    endpoint: Annotated[list[str] | None, typer.Option(help="Running servers of vllm_server; repeatable.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tokens a second of a rollout engine, and of `model.generate` on the same requests."""
    from flows.cli.throughput import measure_throughput

    result = measure_throughput(engine, model, prompts, n, max_new_tokens, repeats, endpoint or [], decoding)
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:<22} {value:,}" if isinstance(value, int | float) else f"{name:<22} {value}")
