"""The `cures` command. Errors end as one sentence and the exit code of their class; --debug shows the traceback."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from pydantic import ValidationError

from cures_core.config.loading import explain
from cures_core.errors import ConfigError, CuresError
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

app = typer.Typer(
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
    except (CuresError, OSError) as error:
        if debug:
            raise
        print(f"{name}: {masked(_sentence(error))}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, CuresError) else 1)
    except ValidationError as error:  # of an option that is part of a configuration, such as --store
        print(f"{name}: {explain(error, 'the command line')}", file=sys.stderr)
        sys.exit(ConfigError.exit_code)
    except KeyboardInterrupt:
        print(f"{name}: stopped; run the same command again to go on", file=sys.stderr)
        sys.exit(130)


def _sentence(error: Exception) -> str:
    if isinstance(error, CuresError):
        return str(error)
    return f"{error}. Free the disk or fix the path, then run the same command again (--debug shows where)"


if __name__ == "__main__":
    main()
