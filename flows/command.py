"""Where `cures` begins: it says what to install where the command itself cannot be loaded."""

from __future__ import annotations

import sys

from cures_core.errors import MissingExtra
from cures_core.failures import failure_of
from cures_core.process_end import end_soon
from flows.cli.typed import NAME, as_typed


def main() -> None:
    """Entry point of `cures`. With the base of the package, or the extra `train`, alone there is no Typer for it."""
    end_soon()
    try:
        from flows.cli.main import main as run_command
    except ModuleNotFoundError as error:
        failure = failure_of(error)
        if not isinstance(failure, MissingExtra):
            raise
        print(f"{NAME}: {as_typed(str(failure))}", file=sys.stderr)
        sys.exit(failure.exit_code)
    run_command()
