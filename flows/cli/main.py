"""The `cures` command. Errors end as one sentence and the exit code of their class; --debug shows the traceback."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated, ClassVar

import typer

from cures_core.errors import ConfigError, CuresError, Preempted, UnexpectedError
from cures_core.failures import failure_of
from cures_core.secrets import mask_logs, masked
from flows.cli.lazy import Entry, LazyGroup
from flows.cli.typed import NAME, as_typed, how_called


class Commands(LazyGroup):
    """A group in which Ctrl-C is an error like others; typer itself would end with 130 and say nothing."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Preempted(
                "stopped by Ctrl-C. Run the same command again: it goes on with what was complete, or begins anew"
            ) from None


class CuresCommands(Commands):
    """The commands of `cures`."""

    entries: ClassVar[dict[str, Entry]] = {
        "run": Entry(
            "flows.cli.run:run", "Train a policy: the same command again, or --resume, goes on where a run ended."
        ),
        "plan": Entry(
            "flows.cli.plan:plan",
            "Estimate prompts, rollouts, tokens, time and GPU memory of a run. Starts nothing, unless --measure.",
        ),
        "join": Entry(
            "flows.cli.join:join",
            "Lend this machine to a run on another one: take part in every epoch that starts there.",
        ),
        "watch": Entry(
            "flows.cli.report:watch",
            "Show a run until it ends: stages, the last step, scores. Ctrl-C stops looking, not the run.",
        ),
        "report": Entry("flows.cli.report:report", "The report of a run as it stands, finished or not."),
        "up": Entry(
            "flows.cli.stack:up",
            "Start a Prefect server with its UI and a worker, and deploy the flows of ./prefect.yaml.",
        ),
        "down": Entry("flows.cli.stack:down", "Stop what `cures up` started; runs keep what they have committed."),
        "status": Entry(
            "flows.cli.stack:status", "Show which parts of the local stack run; ends with 1 if one of them does not."
        ),
        "deploy": Entry(
            "flows.cli.stack:deploy",
            "Deploy the flows of ./prefect.yaml to a server, with its work pool and the automations that end dead "
            "runs.",
        ),
        "doctor": Entry(
            "flows.cli.doctor:doctor",
            "Check Python, git, device, store, disk, Prefect and extras; exit code 1 if something required is missing.",
        ),
        "verify": Entry(
            "flows.cli.verify:verify",
            "Judge completions: outcome, the answer that was read, the rule that decided, the reason, and the reward.",
        ),
        "promote": Entry(
            "flows.cli.models:promote_command",
            "Ask the gate about a finished run, and move the pointer if it says yes (exit code 1 if no).",
        ),
        "rollback": Entry(
            "flows.cli.models:rollback_command",
            "Point a model name at an earlier version again; the history keeps both.",
        ),
        "bench": Entry("flows.cli.bench:app", "Measure this machine."),
        "ci": Entry("flows.cli.ci:app", "Answer a CI job: have prompts changed, is a run due; tell the server."),
        "curriculum": Entry("flows.cli.curriculum:app", "Explain the curriculum."),
        "data": Entry(
            "flows.cli.data:app",
            "Check, convert, split, describe, compare and flag prompts. A set is a file, a folder that `datasets` "
            "saved, path@revision of git or DVC, or s3://bucket/key.",
        ),
        "model": Entry("flows.cli.fetch_model:app", "Fetch small pretrained models."),
        "models": Entry("flows.cli.models:app", "List, show and export promoted models."),
        "posterior": Entry(
            "flows.cli.posterior:app", "Show, compare, export, restore and publish pass-rate posteriors."
        ),
        "rollouts": Entry("flows.cli.rollouts:app", "Read the rollouts that runs have kept."),
        "runs": Entry("flows.cli.runs:app", "List and show runs."),
    }


app = typer.Typer(
    cls=CuresCommands,
    help="Curriculum RL for reasoning LLMs: validate prompts, train, evaluate, snapshot, promote, report.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's own log lines.")] = False,
) -> None:
    """Options of every command; --debug is read in `main`, because errors end there."""


def main() -> None:
    """Entry point of `cures`."""
    run_command_line(app, NAME)


def run_command_line(commands: typer.Typer, name: str) -> None:
    """Run a command, and end with the exit code of what went wrong."""
    debug = "--debug" in sys.argv[1:]
    mask_logs()
    try:
        commands(prog_name=how_called() if name == NAME else name)
    except Exception as error:
        failure = _failure_of(error)
        if debug or _is_a_fault_here(failure, error):
            print(masked("".join(traceback.format_exception(error))), file=sys.stderr)
        for sentence in (str(failure), *getattr(error, "__notes__", ())):
            print(f"{name}: {masked(as_typed(sentence))}", file=sys.stderr)
        sys.exit(failure.exit_code)


def _failure_of(error: Exception) -> CuresError:
    """As everywhere; but here an option may be part of a configuration, such as --store."""
    from pydantic import ValidationError  # both take time that a call for help need not

    if not isinstance(error, ValidationError):
        return failure_of(error)
    from cures_core.config.loading import explain

    return ConfigError(explain(error, "the command line"))


def _is_a_fault_here(failure: CuresError, error: Exception) -> bool:
    """Something unexpected in this process. What a child did not expect is in the child's log."""
    return isinstance(failure, UnexpectedError) and (failure is not error or error.__cause__ is not None)


if __name__ == "__main__":
    main()
