"""Background processes of the local stack: started once, found again by process id and start time, stopped for good."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cures_core.config.base import Strict
from cures_core.errors import ServerUnavailable
from cures_core.files import write_atomic
from tasks.storage.lease import process_start
from tasks.storage.values import decode_value, encode_value

START_DEADLINE_S = 90.0
STOP_GRACE_S = 30.0


class _Noted(Strict):
    """What is noted of a process."""

    pid: int
    started: str | None
    """When it was started (`process_start`); None where it had ended by then."""
    port: int | None = None
    """The port that it was started with."""


def spawn(
    folder: Path,
    name: str,
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    port: int | None = None,
) -> None:
    """Start `command`, noted in `folder`/NAME.json, its output appended to `folder`/NAME.log. `port`: noted, too."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.log").open("ab") as out:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
        )
    told = _Noted(pid=process.pid, started=process_start(process.pid), port=port)
    write_atomic(note(folder, name), encode_value(told))


def note(folder: Path, name: str) -> Path:
    """Where a process is noted."""
    return folder / f"{name}.json"


def process_id(folder: Path, name: str) -> int | None:
    """The number of the running process, None if it does not run. Raises `CorruptArtifact` for a damaged note."""
    found = _noted(folder, name)
    return found.pid if found is not None and _alive(found) else None


def noted_port(folder: Path, name: str) -> int | None:
    """The port that a process was started with, whether it still runs or not; None where there is none."""
    found = _noted(folder, name)
    return None if found is None else found.port


def stop_process(folder: Path, name: str, how: signal.Signals = signal.SIGTERM) -> bool:
    """Stop it and what it started: `how`, 30 s, then SIGKILL. Returns whether it ran."""
    pid = process_id(folder, name)
    if pid is not None:
        os.killpg(pid, how)
        deadline = time.monotonic() + STOP_GRACE_S
        while process_id(folder, name) is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        if process_id(folder, name) is not None:
            os.killpg(pid, signal.SIGKILL)
    note(folder, name).unlink(missing_ok=True)
    return pid is not None


def wait_until(true: Callable[[], bool], folder: Path, name: str) -> None:
    """Raises `ServerUnavailable` with the end of the log if the process ends first or 90 s have passed."""
    deadline = time.monotonic() + START_DEADLINE_S
    while not true():
        if time.monotonic() > deadline or process_id(folder, name) is None:
            tail = "\n".join((folder / f"{name}.log").read_text(errors="replace").splitlines()[-8:])
            raise ServerUnavailable(f"the {name} did not come up; the end of {folder / name}.log:\n{tail}")
        time.sleep(0.3)


def _noted(folder: Path, name: str) -> _Noted | None:
    path = note(folder, name)
    remedy = f"Which process is the stack's {name} is not known by it: end that one by hand, then remove the file"
    return decode_value(_Noted, path.read_bytes(), str(path), remedy) if path.exists() else None


def _alive(process: _Noted) -> bool:
    """The same process, not another one that got its number."""
    return process_start(process.pid) == process.started
