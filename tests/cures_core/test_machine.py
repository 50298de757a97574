"""What code and interpreter computed the numbers."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

from cures_core.machine import _commit, built_from


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    assert _commit(tmp_path) == ""
    git(tmp_path, "init", "-q")
    assert _commit(tmp_path) == ""  # nothing is committed yet
    (tmp_path / "code.py").write_text("one\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert _commit(tmp_path) == head[:12]
    (tmp_path / "beside.txt").write_text("not of the code\n")
    assert _commit(tmp_path) == head[:12]
    (tmp_path / "code.py").write_text("two\n")
    assert _commit(tmp_path) == f"{head[:12]} changed"


def test_a_folder_inside_a_checkout_of_something_else_is_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "site-packages").mkdir()
    assert _commit(tmp_path / "site-packages") == ""


def test_the_interpreter_is_told() -> None:
    assert built_from()["python"] == platform.python_version()
