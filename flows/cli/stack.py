"""`cures up`, `down`, `status`, `deploy`: a local Prefect server, worker and services, and deployments anywhere."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from cures_core.errors import ConfigError
from flows.cli.typed import as_typed
from flows.local.deploying import PoolType

Port = Annotated[
    int | None,
    typer.Option(
        help="Port of the server, on the loopback interface; default: that of the stack in the folder, else 4200."
    ),
]
STACK = Path(".cures/stack")
Folder = Annotated[Path, typer.Option("--dir", help="Folder for the stack's database and logs.")]


def up(
    port: Port = None,
    folder: Folder = STACK,
    s3: Annotated[bool, typer.Option("--s3", help="Run SeaweedFS as the stack's S3, too.")] = False,
    postgres: Annotated[bool, typer.Option("--postgres", help="Keep the server's state in Postgres.")] = False,
) -> None:
    """Start a Prefect server with its UI and a worker, and deploy the flows of ./prefect.yaml."""
    from flows.local.stack import Stack, start

    stack = Stack.at(folder, port)
    start(stack, Path.cwd(), lambda line: typer.echo(as_typed(line)), s3=s3, postgres=postgres)
    typer.echo(
        as_typed(f"open {stack.ui_url}/deployments and press Run on train; `{_of('down', folder)}` stops it all")
    )


def _of(command: str, folder: Path) -> str:
    """A command for the stack in this folder."""
    return f"cures {command}" + ("" if folder == STACK else f" --dir {shlex.quote(str(folder))}")


def down(folder: Folder = STACK) -> None:
    """Stop what `cures up` started; runs keep what they have committed."""
    from flows.local.stack import Stack, stop

    typer.echo(f"stopped {' and '.join(stop(Stack.at(folder))) or 'nothing: it does not run'}")


def status(
    port: Port = None,
    folder: Folder = STACK,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which parts of the local stack run; ends with 1 if one of them does not."""
    from flows.local.stack import Stack
    from flows.local.stack import status as look

    parts = look(Stack.at(folder, port))
    if as_json:
        typer.echo(json.dumps([part.model_dump(mode="json") for part in parts]))
    else:
        for part in parts:
            state = f"runs, pid {part.pid}" if part.running else f"does not run; log {part.log}"
            typer.echo(f"{part.name:9}{part.address:28}{state}")
    if not all(part.running for part in parts):
        if not as_json:
            typer.echo(as_typed(f"to start what does not run, and leave what does alone: {_of('up', folder)}"))
        raise typer.Exit(1)


def deploy(
    api_url: Annotated[str, typer.Option(help="The server's API; default: PREFECT_API_URL.")] = "",
    pool_type: Annotated[PoolType, typer.Option(help="Kind of the work pool: its template is in infra.")] = "process",
) -> None:
    """Deploy the flows of ./prefect.yaml to a server, with its work pool and the automations that end dead runs."""
    from flows.local.deploying import deploy as deploy_to

    url = (api_url or os.environ.get("PREFECT_API_URL", "")).rstrip("/")
    if not url:
        from flows.local.stack import Stack

        local = Stack.at(STACK).api_url  # only named: whoever forgot the address of another server means that one
        raise ConfigError(f"which server? Give --api-url {local}, as of a stack here, or set PREFECT_API_URL")
    deploy_to(url, Path.cwd(), {}, typer.echo, pool_type)
