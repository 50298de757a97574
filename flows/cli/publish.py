"""`cures posterior publish`: a posterior that another trainer has learnt joins the pipeline."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from cures_core.config.data import PromptFile
from cures_core.config.snapshot import SnapshotConfig
from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError
from flows.cli.runs import AsJson, StoreUrl
from flows.cli.typed import as_typed

Column = Annotated[str | None, typer.Option(help="Column of the prompt set. Default: found as in data.columns.")]


def publish_command(
    file: Annotated[Path, typer.Argument(help="What `save_posterior`, or a trainer's checkpoint, has written.")],
    dataset: Annotated[str, typer.Option(help="Prompt set it was learnt on, as data.path.")],
    name: Annotated[str, typer.Option(help="Name to publish under; its posteriors are numbered from 0.")],
    problem: Column = None,
    answer: Column = None,
    id_column: Annotated[str | None, typer.Option("--id", help="Column of the ids that the posterior has.")] = None,
    problem_rule: Annotated[str, typer.Option(help="As data.problem_rule: text, chat or last_user.")] = "text",
    answer_rule: Annotated[str, typer.Option(help="As data.answer_rule: field, gsm8k, boxed or list.")] = "field",
    trainer: Annotated[str, typer.Option(help="For the lineage: what has trained, as 'trl 1.16.0'.")] = "",
    policy: Annotated[str, typer.Option(help="For the lineage: name or digest of the policy.")] = "",
    repository: Annotated[str | None, typer.Option(help="Git repository, as snapshot.repository.")] = None,
    remote: Annotated[str | None, typer.Option(help="DVC remote, as snapshot.remote.")] = None,
    store: StoreUrl = ".cures",
    endpoint_url: Annotated[str | None, typer.Option(help="S3 endpoint, for servers other than Amazon's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Version a posterior that another trainer has learnt, with its lineage.

    `prior.start_from` takes it up; `cures posterior` and `cures curriculum` read it by its name (--run NAME).
    """
    from tasks.snapshots.outside import publish_outside

    columns = {"problem": problem, "answer": answer, "id": id_column}
    rules = {"problem_rule": problem_rule, "answer_rule": answer_rule}
    try:
        data = PromptFile.model_validate({"path": dataset, "columns": columns, **rules})
        places = SnapshotConfig(repository=repository, remote=remote)
        at = StoreConfig(url=store, endpoint_url=endpoint_url)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise ConfigError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}") from error
    done = publish_outside(file, data, name, at, places, trainer, policy)
    if as_json:
        print(json.dumps(dataclasses.asdict(done)))
        return
    print(f"{done.tag}: of {done.prompts:,} prompts {done.known:,} are known from there ({done.remote})")
    if done.archived:
        print(f"{done.archived:,} prompts that are not in {dataset} are kept in its archive")
    print(as_typed(f'next: cures posterior show --run {name}, or prior.start_from = "{done.tag}"'))
