"""`cures run`: the main flow from a terminal."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from cures_core.config.loading import load_config
from cures_core.config.run import RunConfig
from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError, DataRejected, MissingInput, Preempted
from cures_core.events import JobStopped
from cures_core.extras import require_extras
from flows.cli.console import showing_progress
from flows.cli.typed import as_typed
from flows.local.deploying import RUN_SETTINGS
from tasks.progress import Event, RunOpened, listening

if TYPE_CHECKING:
    from tasks.runs.summary import RunSummary


def run(
    config: Annotated[Path | None, typer.Option(help="Profile (TOML); see configs/.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="KEY=VALUE on top of the profile, or of the run's own, as in training.learning_rate=3e-4."
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Go on with this run, with its own configuration. With --set of a setting that changes results, as a "
            "fork: a run of its own that takes over what is done."
        ),
    ] = None,
    first: Annotated[
        str | None,
        typer.Option(
            "--from",
            help='With --resume: do this stage, as in "train_epoch 2", and those after it again. What they made before '
            "is kept.",
        ),
    ] = None,
    store: Annotated[str | None, typer.Option(help="Folder or s3://bucket/prefix of the store.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object on stdout.")] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved configuration and stop.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check all that can be known before any work, as every run does first, say what was found, and stop.",
        ),
    ] = False,
) -> None:
    """Train a policy: the same command again, or --resume, goes on where a run ended."""
    _set_prefect_up()  # before anything imports it: it reads its settings once
    if resume is not None and config is None:
        resume = _in_full(resume, store)
    cfg = _configuration(config, overrides or [], resume, store)
    if cfg.fork is not None and cfg.fork.run == resume:
        print(f"goes on as a {cfg.fork.words}", file=sys.stderr)
    if print_config:
        print(json.dumps(cfg.model_dump(mode="json"), indent=2))
        return
    if check:
        _show_checks(cfg, as_json=as_json)
        return
    require_extras(cfg)
    if first is not None:
        _ask_again(cfg, resume, first)
    started = time.monotonic()
    summary = _already_done(cfg) or _run_flow(cfg)
    seconds = round(time.monotonic() - started, 1)
    if as_json:
        print(json.dumps({**summary.model_dump(mode="json"), "seconds": seconds}))
        return
    for line in summary_lines(summary, seconds):
        print(line)


def _show_checks(cfg: RunConfig, *, as_json: bool) -> None:
    """Every check in a line, then the first error, if any: its class decides the exit code."""
    from tasks.readiness import check_run

    found = check_run(cfg)
    if as_json:
        print(json.dumps([checked.finding.model_dump() for checked in found]))
    else:
        width = max(len(checked.finding.name) for checked in found)
        for finding in (checked.finding for checked in found):
            print(as_typed(f"{finding.status:<9} {finding.name:<{width}}  {finding.found}"))
    errors = [checked.error for checked in found if checked.error is not None]
    if errors:
        raise typer.Exit(errors[0].exit_code)


def summary_lines(summary: RunSummary, seconds: float) -> list[str]:
    """The outcome in words; the report's path is the last line."""
    lines = []
    if all(stage.cached for stage in summary.stages):
        lines.append(f"nothing to do: all {len(summary.stages)} stages of run {summary.run} were committed before")
    for score in summary.scores:
        gain = score.gain
        lines.append(
            f"{score.suite} {score.measure}: {score.before.value:.3f} -> {score.after.value:.3f}, "
            f"gain {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] (n = {score.n}, k = {score.k})"
            + (f"; scored unlike: {'; '.join(score.unlike)}" if score.unlike else "")
        )
    rollouts = summary.rollouts
    lines.append(
        f"rollouts: {rollouts['prior']:,} prior, {rollouts['train']:,} training, {rollouts['eval']:,} evaluation; "
        f"{seconds:.0f} s"
    )
    prompts = summary.prompts
    if prompts.kept or prompts.archived:
        lines.append(
            f"posterior: {prompts.kept:,} prompts kept, {prompts.reset:,} new or edited, {prompts.archived:,} archived"
        )
    lines.append(f"posterior snapshot: {summary.snapshot}")
    decision = summary.promoted
    if decision is not None:
        lines.append(f"{'promoted' if decision.promoted else 'not promoted'}: {' '.join(decision.reasons)}")
    lines.append(summary.report)
    return lines


def _configuration(config: Path | None, overrides: list[str], resume: str | None, store: str | None) -> RunConfig:
    if resume is not None:
        if config is not None:
            raise ConfigError("--resume takes the run's own configuration: leave --config away; --set changes it")
        from tasks.runs.resume import resumed_config

        return resumed_config(_place(store), resume, overrides)
    if config is None:
        raise ConfigError("name a profile: cures run --config configs/quickstart.toml")
    return load_config(config, [*overrides, *([] if store is None else [f"store.url={store}"])])


def _place(store: str | None) -> StoreConfig:
    return StoreConfig() if store is None else StoreConfig(url=store)


def _in_full(run: str, store: str | None) -> str:
    from tasks.runs.notes import find_run
    from tasks.storage import open_store

    return find_run(open_store(_place(store)), run)


def _ask_again(cfg: RunConfig, resume: str | None, first: str) -> None:
    if resume is None:
        raise ConfigError("--from says where a run is done again: name the run with --resume")
    if cfg.fork is not None and cfg.fork.run == resume:
        raise ConfigError(f"--from: what is asked for is a fork of {resume}; make it first, then resume it with --from")
    from tasks.runs.again import ask_again
    from tasks.storage import open_store

    redone = ask_again(open_store(cfg.store), resume, cfg, first)
    print(f"to be done again: {', '.join(redone)}", file=sys.stderr)


def _already_done(cfg: RunConfig) -> RunSummary | None:
    """The outcome of a run of which nothing is left to do: that is told without a server, and changes nothing."""
    from tasks.runs.opening import completed_run

    if os.environ.get("PREFECT_API_URL"):  # a server of the user's is to show every run
        return None
    run = completed_run(cfg)
    if run is None:
        return None
    from flows.train import already_done

    return already_done(run)


def _run_flow(cfg: RunConfig) -> RunSummary:
    """Run the flow in this process, against the server that PREFECT_API_URL names or a temporary one."""
    from tasks.readiness import require_ready

    require_ready(cfg)  # the flow asks too; here it is before a server is started
    logging.captureWarnings("--debug" not in sys.argv[1:])
    outcome = _Outcome()
    signal.signal(signal.SIGTERM, lambda *_: outcome.stop("asked to stop"))  # Prefect calls it when the flow is over
    from flows.local.temporary_server import temporary_server

    try:
        showing = showing_progress(cfg.training.entropy_alarm)
        with listening(outcome), temporary_server(Path(cfg.store.folder) / "prefect"), showing:
            from flows.train import train  # imported while the server starts: either takes seconds

            return train(cfg)
    except KeyboardInterrupt:
        outcome.stop("stopped by Ctrl-C")
    except Exception as error:
        outcome.add_note(error)
        raise


def _set_prefect_up() -> None:
    for name, value in RUN_SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    if "--debug" not in sys.argv[1:]:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
        os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")


class _Outcome:
    """A listener that keeps what the sentence at the end of a run needs."""

    def __init__(self) -> None:
        self._run = ""
        self._saved = ""

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunOpened):
            self._run = event.run
        elif isinstance(event, JobStopped):
            self._saved = f"{event.job}: {event.message}. "

    def stop(self, why: str) -> NoReturn:
        """Raise `Preempted`: what was saved, and how to go on."""
        if not self._run:
            raise Preempted(f"{why} before the run began. Run the same command again")
        raise Preempted(f"{why}. {self._saved}What was done is saved; go on with: cures run --resume {self._run}")

    def add_note(self, error: Exception) -> None:
        """Messages may speak of RUN; where it is known, and going on is what helps, say its name."""
        if self._run and not isinstance(error, ConfigError | DataRejected | MissingInput | Preempted):
            error.add_note(f"RUN is {self._run}; it goes on with: cures run --resume {self._run}")
