"""`cures up`, `down`, `status`, `deploy`: a local Prefect server, worker and services, and deployments anywhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from cures_core.errors import ConfigError
from flows.local.deploying import PoolType

Port = Annotated[int, typer.Option(help="Port of the server, on the loopback interface.")]
Folder = Annotated[Path, typer.Option("--dir", help="Folder for the stack's database and logs.")]


def up(
    port: Port = 4200,
    folder: Folder = Path(".cures/stack"),
    s3: Annotated[bool, typer.Option("--s3", help="Run SeaweedFS as the stack's S3, too.")] = False,
    postgres: Annotated[bool, typer.Option("--postgres", help="Keep the server's state in Postgres.")] = False,
) -> None:
    """Start a Prefect server with its UI and a worker, and deploy the flows of ./prefect.yaml."""
    from flows.local.stack import Stack, start

    stack = Stack(folder, port)
    start(stack, Path.cwd(), typer.echo, s3=s3, postgres=postgres)
    typer.echo(f"open {stack.ui_url}/deployments and press Run on train; `cures down` stops it all")


def down(folder: Folder = Path(".cures/stack")) -> None:
    """Stop what `cures up` started; runs keep what they have committed."""
    from flows.local.stack import Stack, stop

    typer.echo(f"stopped {' and '.join(stop(Stack(folder))) or 'nothing: it does not run'}")


def status(
    port: Port = 4200,
    folder: Folder = Path(".cures/stack"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which parts of the local stack run; ends with 1 if one of them does not."""
    from flows.local.stack import Stack
    from flows.local.stack import status as look

    parts = look(Stack(folder, port))
    if as_json:
        typer.echo(json.dumps([part.model_dump(mode="json") for part in parts]))
    else:
        for part in parts:
            state = f"runs, pid {part.pid}" if part.running else f"does not run; log {part.log}"
            typer.echo(f"{part.name:9}{part.address:28}{state}")
    if not all(part.running for part in parts):
        raise typer.Exit(1)


def deploy(
    api_url: Annotated[str, typer.Option(help="The server's API; default: PREFECT_API_URL.")] = "",
    pool_type: Annotated[PoolType, typer.Option(help="Kind of the work pool: its template is in infra.")] = "process",
) -> None:
    """Deploy the flows of ./prefect.yaml to a server, with its work pool and the automation that finds dead runs."""
    from flows.local.deploying import deploy as deploy_to

    url = (api_url or os.environ.get("PREFECT_API_URL", "")).rstrip("/")
    if not url:
        raise ConfigError("which server? Give --api-url http://HOST:4200/api or set PREFECT_API_URL")
    deploy_to(url, Path.cwd(), {}, typer.echo, pool_type)
