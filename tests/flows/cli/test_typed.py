"""Commands that are told work as they are printed, wherever `cures` was started from."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.main import CuresCommands
from flows.cli.typed import as_typed
from tests.end_to_end.pipeline import PROJECT

TEXT = "resume: cures run --resume A, `cures runs list`; the cures-a1 of /x/cures run; pip install 'cures[vllm]'"
BY_PATH = "resume: {0} run --resume A, `{0} runs list`; the cures-a1 of /x/cures run; {1} -m pip install 'cures[vllm]'"


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a `cures`, as an environment has one."""
    folder = tmp_path / "an env" / "bin"
    folder.mkdir(parents=True)
    (folder / "cures").touch(mode=0o755)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("MAKELEVEL", raising=False)
    return folder


def test_where_the_shell_finds_it_the_name_is_enough(bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{bin}:/usr/bin")
    monkeypatch.setattr(sys, "argv", [str(bin / "cures"), "run"])  # what a shell makes of `cures run`
    assert as_typed(TEXT) == TEXT


@pytest.mark.parametrize("case", ["not on the PATH", "another one on the PATH", "typed as a path", "started by make"])
def test_elsewhere_it_is_the_path_that_it_was_started_by(
    case: str, bin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = str(bin / "cures")
    if case == "another one on the PATH":
        (tmp_path / "cures").touch(mode=0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
    elif case != "not on the PATH":
        monkeypatch.setenv("PATH", str(bin))  # as the Makefile sets it for what it starts
        if case == "started by make":
            monkeypatch.setenv("MAKELEVEL", "1")
        else:
            started = "an env/bin/cures"
    monkeypatch.setattr(sys, "argv", [started, "run"])
    assert as_typed(TEXT) == BY_PATH.format(f"'{started}'", sys.executable)


def test_in_another_program_commands_keep_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/lib/python/site-packages/prefect/engine.py"])
    assert as_typed(TEXT) == TEXT


def test_an_error_names_the_command_as_it_was_called(bin: Path, tmp_path: Path) -> None:
    program = bin / "cures"
    program.write_text(f"#!{sys.executable}\nfrom flows.command import main; main()\n")
    env = {"PATH": f"{bin}:/usr/bin:/bin", "MAKELEVEL": "1", "PYTHONPATH": str(PROJECT), "HOME": str(tmp_path)}
    for arguments, said in (
        (["run"], f"name a profile: '{program}' run --config configs/quickstart.toml"),
        (["run", "--wrong"], f"'{program}' run --help"),
        (["runs", "list"], f"start one with: '{program}' run --config configs/quickstart.toml"),
        (["status", "--dir", "a stack"], f"'{program}' up --dir 'a stack'"),
    ):
        done = subprocess.run([program, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert said in " ".join((done.stdout + done.stderr).split()), done


def test_what_reads_like_a_command_is_one() -> None:
    """In every text of the product: the name of the package before another word would be taken for one."""
    texts = []
    for package in ("cures_core", "tasks", "flows"):
        for path in (PROJECT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            texts += [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    named = {word for text in texts if isinstance(text, str) for word in re.findall(r"\bcures ([a-z]+)", text)}
    assert len(named) > 10
    assert named <= set(CuresCommands.entries)
