"""Background processes of the local stack: started once, found again by process id and start time, stopped for good."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cures_core.errors import ServerUnavailable
from cures_core.files import canonical_json, write_atomic
from tasks.storage.lease import process_start

START_DEADLINE_S = 90.0
STOP_GRACE_S = 30.0


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
    told = {"pid": process.pid, "started": process_start(process.pid), **({} if port is None else {"port": port})}
    write_atomic(note(folder, name), canonical_json(told))


def note(folder: Path, name: str) -> Path:
    """Where a process is noted."""
    return folder / f"{name}.json"


def process_id(folder: Path, name: str) -> int | None:
    """The number of the running process, None if it does not run."""
    found = _noted(folder, name)
    return int(found["pid"]) if found is not None and _alive(found) else None


def noted_port(folder: Path, name: str) -> int | None:
    """The port that a process was started with, whether it still runs or not; None where there is none."""
    port = (_noted(folder, name) or {}).get("port")
    return None if port is None else int(port)


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


def _noted(folder: Path, name: str) -> dict[str, Any] | None:
    path = note(folder, name)
    return json.loads(path.read_bytes()) if path.exists() else None


def _alive(process: Mapping[str, Any]) -> bool:
    """The same process, not another one that got its number."""
    return bool(process_start(process["pid"]) == process["started"])
