"""The `cures` command. Errors end as one sentence and the exit code of their class; --debug shows the traceback."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from cures_core.config.loading import explain
from cures_core.errors import ConfigError, CuresError, Preempted, UnexpectedError
from cures_core.failures import failure_of
from cures_core.secrets import masked
from flows.cli.bench import app as bench_commands
from flows.cli.ci import app as ci_commands
from flows.cli.curriculum import app as curriculum_commands
from flows.cli.data import app as data_commands
from flows.cli.doctor import doctor
from flows.cli.fetch_model import app as model_commands
from flows.cli.join import join
from flows.cli.models import app as models_commands
from flows.cli.models import promote_command, rollback_command
from flows.cli.plan import plan
from flows.cli.posterior import app as posterior_commands
from flows.cli.report import report, watch
from flows.cli.run import run
from flows.cli.runs import app as runs_commands
from flows.cli.stack import deploy, down, status, up
from flows.cli.verify import verify


class Commands(TyperGroup):
    """A group in which Ctrl-C is an error like others; typer itself would end with 130 and say nothing."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Preempted(
                "stopped by Ctrl-C. Run the same command again: it goes on with what was complete, or begins anew"
            ) from None


app = typer.Typer(
    cls=Commands,
    help="Curriculum RL for reasoning LLMs: validate prompts, train, evaluate, snapshot, promote, report.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("run")(run)
app.command("plan")(plan)
app.command("join")(join)
app.command("watch")(watch)
app.command("report")(report)
app.command("up")(up)
app.command("down")(down)
app.command("status")(status)
app.command("deploy")(deploy)
app.command("doctor")(doctor)
app.command("verify")(verify)
app.command("promote")(promote_command)
app.command("rollback")(rollback_command)
app.add_typer(bench_commands, name="bench")
app.add_typer(ci_commands, name="ci")
app.add_typer(curriculum_commands, name="curriculum")
app.add_typer(data_commands, name="data")
app.add_typer(model_commands, name="model")
app.add_typer(models_commands, name="models")
app.add_typer(posterior_commands, name="posterior")
app.add_typer(runs_commands, name="runs")


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's own log lines.")] = False,
) -> None:
    """Options of every command; --debug is read in `main`, because errors end there."""


def main() -> None:
    """Entry point of `cures`."""
    run_command_line(app, "cures")


def run_command_line(commands: typer.Typer, name: str) -> None:
    """Run a command, and end with the exit code of what went wrong."""
    debug = "--debug" in sys.argv[1:]
    try:
        commands(prog_name=name)
    except ValidationError as error:  # of an option that is part of a configuration, such as --store
        print(f"{name}: {explain(error, 'the command line')}", file=sys.stderr)
        sys.exit(ConfigError.exit_code)
    except Exception as error:
        failure = failure_of(error)
        if debug or _is_a_fault_here(failure, error):
            print(masked("".join(traceback.format_exception(error))), file=sys.stderr)
        for sentence in (str(failure), *getattr(error, "__notes__", ())):
            print(f"{name}: {masked(sentence)}", file=sys.stderr)
        sys.exit(failure.exit_code)


def _is_a_fault_here(failure: CuresError, error: Exception) -> bool:
    """Something unexpected in this process. What a child did not expect is in the child's log."""
    return isinstance(failure, UnexpectedError) and (failure is not error or error.__cause__ is not None)


if __name__ == "__main__":
    main()
