"""Commands are imported when they are called, and listed as they would describe themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cures_core.config.loading import load_config
from flows.cli.lazy import load
from flows.cli.main import CuresCommands, app
from flows.local.deploying import RUN_SETTINGS, watches
from tasks.runs.opening import open_run
from tests.end_to_end.pipeline import PROJECT, write_profile

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


BOUND_S = 1.5
"""Of processor time, which other work on the machine changes little; docs/operations.md tells what was measured."""


def processor_time(*arguments: str) -> float:
    """Seconds of the least of five starts of the command."""
    found = []
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-m", "flows.cli.main", *arguments], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        found.append(used.ru_utime + used.ru_stime)
    return min(found)


@pytest.fixture
def twenty_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with the runs of twenty seeds."""
    profile = write_profile(tmp_path)
    monkeypatch.chdir(tmp_path)
    for seed in range(20):
        with open_run(load_config(profile, [f"seed={seed}"])) as run:
            store = run.config.store.url
    return str(tmp_path / store)


def test_a_list_of_runs_waits_for_no_library_that_trains_or_orchestrates(twenty_runs: str) -> None:
    code = "import sys\nfrom flows.cli.main import app\n"
    code += f"try:\n    app(['runs', 'list', '--json', '--store', {twenty_runs!r}])\nexcept SystemExit:\n    pass\n"
    code += f"print([name for name in {SLOW} if name in sys.modules and name != 'pydantic'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert len(json.loads("".join(done.stdout.splitlines()[:-1]))) == 20
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_help_and_a_list_of_runs_are_there_at_once(twenty_runs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    found = {"help": processor_time("--help"), "list": processor_time("runs", "list", "--store", twenty_runs)}
    print(found)
    assert max(found.values()) < BOUND_S, found


@pytest.mark.parametrize("debug", [False, True])
def test_a_resumed_run_quietens_prefect_before_anything_imports_it(
    debug: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "")
    monkeypatch.delenv("PREFECT_LOGGING_LEVEL")  # put back to what it was, after the test
    monkeypatch.setattr(sys, "argv", ["cures", *(["--debug"] if debug else [])])
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(app, ["run", "--resume", "none-of-this-name"])
    assert os.environ.get("PREFECT_LOGGING_LEVEL") == (None if debug else "CRITICAL")


def test_a_run_on_a_server_of_ones_own_sends_heartbeats_in_time_and_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in RUN_SETTINGS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(app, ["run", "--resume", "none-of-this-name"])
    assert {name: os.environ.get(name) for name in RUN_SETTINGS} == RUN_SETTINGS
    beats = next(watch for watch in watches("process") if watch.expect[1] == "heartbeat")
    assert 3 * int(RUN_SETTINGS["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) <= beats.within_s
