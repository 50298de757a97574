"""Runs a job in a process of its own and turns what becomes of it into a result or the right error."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cures_core import errors
from cures_core.errors import ChildFailed, CuresError
from cures_core.files import write_atomic
from cures_core.jobs.spec import Job
from tasks.progress import emit

STOP_GRACE_S = 30.0


def run_job(job: Job) -> None:
    """Run `python -m cures_core.jobs` to its end, passing its events on.

    Raises the error the job reported, or `ChildFailed` (retryable) if a signal ended it. Whatever stops this function
    (Ctrl-C, cancellation, SIGTERM) first lets the job save its checkpoint: SIGTERM, 30 s, then SIGKILL.
    """
    job.scratch.mkdir(parents=True, exist_ok=True)
    spec, log, error = job.scratch / "job.json", job.scratch / "job.log", job.scratch / "error.json"
    write_atomic(spec, job.model_dump_json().encode())
    error.unlink(missing_ok=True)
    with log.open("ab") as log_file:
        child = subprocess.Popen(
            [sys.executable, "-m", "cures_core.jobs", str(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then asks the job to stop
        )
    try:
        for line in child.stdout or ():
            emit(json.loads(line))
        code = child.wait()
    except BaseException:
        _stop(child)
        raise
    finally:
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
    if code != 0:
        raise _failure(job, code, error, log)


def _stop(child: subprocess.Popen[bytes]) -> None:
    with _deaf_to_sigterm():
        child.terminate()
        try:
            child.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def _deaf_to_sigterm() -> Iterator[None]:
    """Whoever stops a run may ask twice; the second time must not cut off the saving that the first one began."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _failure(job: Job, code: int, error: Path, log: Path) -> CuresError:
    if error.exists():
        told = json.loads(error.read_bytes())
        kind = getattr(errors, told["class"], CuresError)
        return kind(told["message"]) if issubclass(kind, CuresError) else CuresError(told["message"])
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the kernel kills processes when memory runs out" if name == "SIGKILL" else ""
        return ChildFailed(
            f"{job.name} was ended by {name}{hint}. Resume to go on from its last checkpoint; log: {log}"
        )
    return ChildFailed(f"{job.name} ended with exit code {code}; log: {log}\n{tail}")
