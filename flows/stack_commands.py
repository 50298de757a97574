"""`cures up` and `cures down`: a local Prefect server, worker and deployments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Port = Annotated[int, typer.Option(help="Port of the server, on the loopback interface.")]
Folder = Annotated[Path, typer.Option("--dir", help="Folder for the stack's database and logs.")]


def up(port: Port = 4200, folder: Folder = Path(".cures/stack")) -> None:
    """Start a Prefect server with its UI and a worker, and deploy the flows of ./prefect.yaml."""
    from flows.stack import Stack, start

    stack = Stack(folder, port)
    start(stack, Path.cwd(), typer.echo)
    typer.echo(f"open {stack.ui_url}/deployments and press Run on train; `cures down` stops it all")


def down(folder: Folder = Path(".cures/stack")) -> None:
    """Stop what `cures up` started; runs keep what they have committed."""
    from flows.stack import Stack, stop

    typer.echo(f"stopped {' and '.join(stop(Stack(folder))) or 'nothing: it does not run'}")
