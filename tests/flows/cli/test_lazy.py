"""Commands are imported when they are called, and listed as they would describe themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from flows.cli.lazy import load
from flows.cli.main import CuresCommands, app

SLOW = ("torch", "prefect", "numpy", "pydantic", "great_expectations", "pandas", "pyarrow", "httpx", "boto3")


@pytest.mark.parametrize("name", CuresCommands.entries)
def test_a_group_says_of_a_command_what_the_command_says(name: str) -> None:
    entry = CuresCommands.entries[name]
    said = (load(name, entry).help or "").split("\n\n")[0]
    assert " ".join(said.split()) == entry.help


def test_all_commands_are_listed_in_order() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    first = [words[1] for line in shown.splitlines() if len(words := line.split()) > 2]
    listed = [name for name in first if name in CuresCommands.entries]
    assert listed == list(CuresCommands.entries)


def test_an_unknown_command_is_refused_with_the_nearest() -> None:
    outcome = CliRunner().invoke(app, ["poster"])
    assert outcome.exit_code == 2
    assert "posterior" in outcome.output


def test_a_command_of_a_group_is_reached() -> None:
    outcome = CliRunner().invoke(app, ["data", "flags", "--list", "/nowhere/flags.jsonl"])
    assert "flags.jsonl" in str(outcome.exception)


def test_help_waits_for_no_library_but_its_own() -> None:
    code = "import sys\nfrom flows.cli.main import app\ntry:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
    code += f"print([name for name in {SLOW} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
