"""`cures ci`: what CI jobs run when prompts change. The templates that call it lie in infra/ci."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cures_core.config.loading import load_config
from cures_core.errors import CuresError, RunIncomplete
from flows.cli.runs import AsJson

if TYPE_CHECKING:
    from cures_core.config.run import RunConfig
    from tasks.ci.changes import PromptChanges

app = typer.Typer(help="Answer a CI job: have prompts changed, is a run due; tell the server.", no_args_is_help=True)

DUE = 10
Base = Annotated[str, typer.Option(help="Revision before the change; zeros, as before a first push: nothing.")]
Head = Annotated[str, typer.Option(help="Revision after it.")]
Config = Annotated[Path, typer.Option(help="Profile that names the prompt set, the suites and the rule.")]


@app.command("changed")
def changed_command(
    base: Base, head: Head = "HEAD", config: Config = Path("configs/quickstart.toml"), as_json: AsJson = False
) -> None:
    """Has the prompt set changed, which ids, is retraining due ([retrain])? Exit code 0: not due, 10: due."""
    found = _changes(config, base, head)
    if as_json:
        print(json.dumps(found))
    else:
        print(", ".join(f"{number:,} {fate}" for fate, number in found["counts"].items()))
        print(f"retraining is due: {'; '.join(found['reasons'])}" if found["due"] else "retraining is not due")
    if found["due"]:
        raise typer.Exit(DUE)


@app.command("summary")
def summary_command(
    base: Base,
    head: Head = "HEAD",
    config: Config = Path("configs/quickstart.toml"),
    out: Annotated[Path | None, typer.Option(help="Write the Markdown here. Default: to stdout.")] = None,
) -> None:
    """Validate the set as it lies here and describe the change in Markdown; exit code 3 if the set is not fit, with the
    reasons in the text."""
    from tasks.ci.markdown import refusal

    cfg = load_config(config)
    try:
        text = _summary(cfg, _changes(config, base, head))
    except CuresError as error:  # the comment is what a reviewer looks at: it says why as well
        _write(refusal(error), out)
        raise
    _write(text, out)


def _summary(cfg: RunConfig, found: PromptChanges) -> str:
    from tasks.ci.markdown import summary
    from tasks.inputs.prompt_files import Inputs
    from tasks.validation.golds import gold_judges
    from tasks.validation.tokens import misfits, rooms_if_known, token_counter
    from tasks.validation.validator import one_message, validate

    with tempfile.TemporaryDirectory(prefix="cures-ci-") as folder, gold_judges(cfg) as (judge, of_suites):
        suites, locate = list(cfg.evaluation.suites), Inputs.of(cfg).local
        count, shown, fit = token_counter(cfg), one_message(cfg), misfits(cfg, rooms_if_known(cfg))
        checked = validate(cfg.data, suites, Path(folder), judge, count, of_suites, locate, shown, fit)
    return summary(found, checked, cfg)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")


@app.command("announce")
def announce_command(
    base: Base,
    head: Head = "HEAD",
    config: Config = Path("configs/quickstart.toml"),
    start_from: Annotated[str, typer.Option(help="Snapshot's tag, `latest`, or `none`.")] = "latest",
    data_path: Annotated[
        str | None, typer.Option(help="Where workers find the prompt set. Default: the profile's data.path.")
    ] = None,
    wait_s: Annotated[float, typer.Option(help="Wait so long for the run to end; 0: do not wait.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """If retraining is due, emit `prompts.dataset.changed` to the server in PREFECT_API_URL; equal ones make one run.

    With --wait-s: exit code 1 unless the run completes.
    """
    from tasks.ci.announce import DEPLOYMENT, EVENT, FLOW, announce, api_url, page_of, wait_for_run

    url, cfg = api_url(), load_config(config)
    found = _changes(config, base, head)
    answer: dict[str, Any] = {"key": found["key"], "due": found["due"], "reasons": found["reasons"]}
    if found["due"]:
        page = announce(url, found["key"], cfg, data_path or cfg.data.path, start_from)
        answer |= {"event": EVENT, "deployment": f"{FLOW}/{DEPLOYMENT}", "url": page}
        if wait_s:
            run = wait_for_run(url, found["key"], wait_s)
            answer |= {"flow_run": run["id"], "state": run["state_type"]}
            answer["url"] = page_of("flow-run", run["id"])
    print(json.dumps(answer) if as_json else _said(answer))
    if answer.get("state", "COMPLETED") != "COMPLETED":
        raise RunIncomplete(f"run {answer['flow_run']} ended {answer['state']}; see its page in the UI")


def _said(answer: dict[str, Any]) -> str:
    if not answer["due"]:
        return f"retraining is not due, nothing was announced (change {answer['key']})"
    ended = f"; run {answer['flow_run']} ended {answer['state']}" if "state" in answer else ""
    return (
        f"{answer['event']} sent, change {answer['key']}: {'; '.join(answer['reasons'])}\n"
        f"it starts {answer['deployment']}{ended}: {answer['url']}"
    )


def _changes(config: Path, base: str, head: str) -> PromptChanges:
    from tasks.ci.changes import changes

    with tempfile.TemporaryDirectory(prefix="cures-ci-") as folder:
        return changes(load_config(config), base, head, Path(folder))
