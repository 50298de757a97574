"""`cures doctor`: what is missing, and how to get it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cures_core.config.storage import StoreConfig
from flows.cli.runs import AsJson, StoreUrl
from flows.cli.typed import as_typed


def doctor(
    store: StoreUrl = ".cures",
    endpoint_url: Annotated[str | None, typer.Option(help="S3 endpoint, for servers other than Amazon's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check Python, git, device, store, disk, Prefect and extras; exit code 1 if something required is missing."""
    from tasks.doctor import examine

    findings = examine(StoreConfig(url=store, endpoint_url=endpoint_url))
    if as_json:
        print(json.dumps([f.model_dump() for f in findings]))
    else:
        for f in findings:
            remedy = f"  -> {f.remedy}" if f.remedy else ""
            print(as_typed(f"{f.status:<9} {f.name:<11} {f.found}{remedy}"))
    if any(f.status == "missing" for f in findings):
        raise typer.Exit(1)
