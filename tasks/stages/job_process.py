"""Runs a job in a process of its own and turns what becomes of it into a result or the right error."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cures_core.errors import Preempted
from cures_core.events import JobEvent, JobStopped, parse_event
from cures_core.failure_report import read_report
from cures_core.failures import Ended, failure_of
from cures_core.files import write_atomic
from cures_core.jobs.scene import scene_of
from cures_core.jobs.spec import Job
from cures_core.oom_kills import oom_kills
from tasks.inputs.pretrained import with_base
from tasks.progress import emit
from tasks.stages.job_start import Forked, Spawned, start_job

Child = Spawned | Forked

STOP_GRACE_S = 30.0
_TAIL_LINES = 4


def run_job(job: Job, on_event: Callable[[JobEvent], None] = emit) -> None:
    """Run `python -m cures_core.jobs` to its end, passing its events to `on_event`.

    Raises the error the job reported, or what its end amounts to (`cures_core.failures`). Whatever stops this function
    (Ctrl-C, cancellation, SIGTERM) first lets the job save its checkpoint: SIGTERM, 30 s, then SIGKILL; what it says
    of it is emitted as a `JobStopped`.
    """
    job.scratch.mkdir(parents=True, exist_ok=True)
    spec, log, report = job.scratch / "job.json", job.scratch / "job.log", job.scratch / "error.json"
    write_atomic(spec, with_base(job).model_dump_json().encode())
    report.unlink(missing_ok=True)
    oom_kills_before = oom_kills()
    with log.open("ab") as log_file:
        child = _jobs.start(job, spec, log_file)
    try:
        for line in child.stdout or ():
            if line.endswith(b"\n"):  # else the job was killed in the middle of it
                on_event(parse_event(line))
        code = child.wait()
    except BaseException:
        _stop(child)
        if (last_words := read_report(report)) is not None:
            on_event(JobStopped(job=job.name, message=str(last_words)))
        raise
    finally:
        _jobs.ended(child)
        child.close()
    if code != 0:
        ended = Ended(code, _tail(log), for_memory=oom_kills() > oom_kills_before)
        raise read_report(report) or failure_of(ended, scene_of(job))


class _Jobs:
    """The jobs that threads of this process wait for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Child] = set()
        self.stopping = False

    def start(self, job: Job, spec: Path, log: BinaryIO) -> Child:
        with self._lock:
            if self.stopping:
                raise Preempted("asked to stop before the job began. Resume to go on from there")
            child = start_job(job, spec, log)
            self._running.add(child)
            return child

    def ended(self, child: Child) -> None:
        with self._lock:
            self._running.discard(child)

    def stop(self) -> None:
        with self._lock:
            self.stopping = True
            for child in self._running:
                child.terminate()


_jobs = _Jobs()


def stop_jobs() -> None:
    """Ask the jobs of all threads to save what they have and end, and refuse new ones until `allow_jobs`.

    `run_job` then raises `Preempted` in those threads.
    """
    _jobs.stop()


def jobs_stopping() -> bool:
    """Has `stop_jobs` been called?"""
    return _jobs.stopping


def allow_jobs() -> None:
    """The threads whose jobs were stopped have ended."""
    _jobs.stopping = False


def _stop(child: Child) -> None:
    with _signals_ignored():
        child.terminate()
        try:
            child.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Whoever stops a run may ask twice; the second time must not cut off the saving that the first one began."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tail(log: Path) -> str:
    """The last lines of a process's log."""
    return " | ".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
