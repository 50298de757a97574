"""The processes of a deployed run, found and stopped as an operator or a kernel would."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

_SIGTERM_BIT = 1 << (signal.SIGTERM - 1)


def wait_for_pause(store: Path, point: str, seconds: float = 600) -> int:
    """The id of the job that the fault `point=pause` has stopped, for a run with its store in `store`."""
    marker = f"{point.replace(':', '_')}.pause"
    deadline = time.monotonic() + seconds
    while True:
        if list(store.glob(f"faults/*/{marker}")):
            for pid in jobs_of(store):
                if _status(pid, "State").startswith("T"):
                    return pid
        assert time.monotonic() < deadline, f"nothing was paused at {point}"
        time.sleep(0.1)


def jobs_of(store: Path) -> Iterator[int]:
    """Job processes that work in a store's scratch folder."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            words = _words(int(entry.name))
            if "cures_core.jobs" in words and words[-1].startswith(str(store)):
                yield int(entry.name)


def flow_of(job: int) -> int:
    """The process that waits for a job: the parent of what it was forked from."""
    parent = int(_status(job, "PPid"))
    return int(_status(parent, "PPid")) if "cures_core.jobs.forkserver" in _words(parent) else parent


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and everything below it, as a power cut would."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(pid, signal.SIGKILL)
    for child in children:
        kill_tree(int(child))


def wait_for_sigterm(pid: int, seconds: float = 180) -> None:
    """Until a paused process has been sent SIGTERM, which it will notice when it goes on."""
    deadline = time.monotonic() + seconds
    while not int(_status(pid, "ShdPnd"), 16) & _SIGTERM_BIT:
        assert time.monotonic() < deadline, "no SIGTERM has reached the job"
        time.sleep(0.1)


def wait_until_gone(pid: int, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists() and not _status(pid, "State").startswith("Z"):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.1)


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ").split()
    except OSError:
        return []


def _status(pid: int, field: str) -> str:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{field}:")), "")
