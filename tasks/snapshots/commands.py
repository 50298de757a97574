"""How git and DVC are called: no prompts, no telemetry, no shell, a deadline, and errors that hide secrets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cures_core.errors import MissingExtra, StoreUnavailable
from cures_core.secrets import masked
from tasks.snapshots import dvc_session

_QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes"),
    "LC_ALL": "C.UTF-8",
    "DVC_NO_ANALYTICS": "1",
}
_ROOM_BYTES = 1 << 20
"""About what DVC's databases need."""
# A caller's own git state must not redirect ours.
_FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES")


def git(
    folder: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    check: bool = True,
    deadline_s: float = 120,
) -> subprocess.CompletedProcess[bytes]:
    """Run git in `folder`. Raises `StoreUnavailable` with git's last lines if it fails and `check` is set."""
    return _run("git", arguments, ["git", *arguments], folder, env or {}, stdin, check, deadline_s)


def dvc(folder: Path, *arguments: str, deadline_s: float = 3600) -> None:
    """Run DVC commands (separated by `--then`) in `folder`. Raises `StoreUnavailable` with DVC's last lines.

    In a process of its own: DVC needs the current directory, which threads share.
    """
    # -P: the folder of that file is not to be imported from.
    command = [sys.executable, "-P", str(Path(dvc_session.__file__)), *arguments]
    _run("dvc", arguments, command, folder, {"DVC_SITE_CACHE_DIR": str(folder / "site")}, b"", True, deadline_s)


def _run(
    tool: str,
    arguments: Sequence[str],
    command: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    stdin: bytes,
    check: bool,
    deadline_s: float,
) -> subprocess.CompletedProcess[bytes]:
    what = masked(f"{tool} {' '.join(arguments)}"[:200])
    clean = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**clean, **_QUIET, **env},
            input=stdin,
            capture_output=True,
            timeout=deadline_s,
            check=False,
        )
    except FileNotFoundError as error:
        if not folder.is_dir():
            raise StoreUnavailable(f"{what}: its folder {folder} is gone. Retry to have it made anew") from error
        raise MissingExtra(f"{what}: {tool} is not installed. With Debian: apt-get install {tool}") from error
    except subprocess.TimeoutExpired as error:
        raise StoreUnavailable(
            f"{what}: no end in {deadline_s:.0f} s. See that the place answers, then retry"
        ) from error
    if check and done.returncode != 0:
        raise StoreUnavailable(f"{what}: failed with exit code {done.returncode}: {last_lines(done)}{_no_room(folder)}")
    return done


def _no_room(folder: Path) -> str:
    """That the disk is full: where DVC's databases have no room, it speaks of a disk I/O error."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:  # gone meanwhile
        return ""
    return f". The disk is full: {free:,} bytes are free in {folder}. Make room there" if free < _ROOM_BYTES else ""


def last_lines(done: subprocess.CompletedProcess[bytes]) -> str:
    """The end of what a command said, secrets masked."""
    text = (done.stderr or done.stdout).decode(errors="replace").strip()
    return masked("\n".join(text.splitlines()[-5:])) or "it said nothing"
