"""Starts the processes of jobs: forked from one that has done their imports, or new where there may be a GPU."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from cures_core.config.run import RunConfig
from cures_core.jobs.spec import Job

_KILLED = -signal.SIGKILL
_NOT_READ = ("CURES_FAULTS", "CURES_FAULTS_DIR", "GX_ANALYTICS_ENABLED", "PYTEST_CURRENT_TEST")  # by an import of a job
_GPU_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))


class Spawned(subprocess.Popen[bytes]):
    """A job in a process of its own, from nothing."""

    def __init__(self, spec: Path, log: BinaryIO) -> None:
        super().__init__(
            [sys.executable, "-m", "cures_core.jobs", str(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then asks the job to stop
        )

    def close(self) -> None:
        """Let go of its pipes; a job that still lives ends by that."""
        for pipe in (self.stdin, self.stdout):
            if pipe is not None:
                pipe.close()


class Forked:
    """A job in a process of its own, which the server of this process forks. Looks like `Spawned`."""

    def __init__(self, control: socket.socket, spec: Path, log: BinaryIO) -> None:
        (theirs_in, ours_in), (ours_out, theirs_out), (ours_told, theirs_told) = os.pipe(), os.pipe(), os.pipe()
        self.stdin, self.stdout = os.fdopen(ours_in, "wb", 0), os.fdopen(ours_out, "rb")
        self._told = os.fdopen(ours_told, "rb", 0)
        self.returncode: int | None = None
        self._pid: int | None = None
        self._lock = threading.Lock()
        request = json.dumps((str(spec.absolute()), str(Path.cwd()), dict(os.environ))).encode()
        try:
            # An environment may be larger than a message, and holds secrets, which are not for a disk.
            with os.fdopen(os.memfd_create("job"), "wb") as file:
                file.write(request)
                file.flush()
                # A server that is gone: what it tells ends at once, as of a killed job.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    fds = [file.fileno(), theirs_in, theirs_out, log.fileno(), theirs_told]
                    socket.send_fds(control, [b"j"], fds)
        finally:
            for fd in (theirs_in, theirs_out, theirs_told):
                os.close(fd)

    @property
    def pid(self) -> int:
        """Of the job's process; waits until it is forked. 0 where it never was."""
        with self._lock:
            if self._pid is None:
                self._pid = self._number(0)
            return self._pid

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, as `Popen` has it. Raises `subprocess.TimeoutExpired`."""
        pid = self.pid
        with self._lock:
            if self.returncode is None:
                if not select.select([self._told], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(f"job {pid}", timeout or 0)
                self.returncode = self._number(_KILLED)
            return self.returncode

    def send_signal(self, number: int) -> None:
        """To the job's process, if it is still there."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to save and end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Let go of its pipes; a job that still lives ends by that."""
        for pipe in (self.stdin, self.stdout, self._told):
            pipe.close()

    def _number(self, otherwise: int) -> int:
        """What the server tells next; `otherwise` where it is gone."""
        line = b""
        while not line.endswith(b"\n"):
            byte = self._told.read(1)
            if not byte:
                return otherwise
            line += byte
        return int(line)


class _Server:
    """The process that jobs are forked from; another one where the environment has changed since."""

    def __init__(self) -> None:
        self._environment = _environment()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cures_core.jobs.forkserver", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def serves(self) -> bool:
        """Is it what a job that begins now should be forked from?"""
        return self._environment == _environment() and self._process.poll() is None

    def close(self) -> None:
        """End it; jobs that run go on."""
        self.control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:  # in the middle of its imports
            self._process.kill()
            self._process.wait()


_lock = threading.Lock()
_server: _Server | None = None


def start_job(job: Job, spec: Path, log: BinaryIO) -> Spawned | Forked:
    """Start the job of the file `spec`; what it writes to stderr goes to `log`. Waits for nothing."""
    return Forked(_serving().control, spec, log) if forks(job.config) else Spawned(spec, log)


def forks(config: RunConfig) -> bool:
    """Are a run's jobs forked? Not where they may use a GPU, which a forked process cannot."""
    device = config.device.type
    return device == "cpu" or (device == "auto" and not any(driver.exists() for driver in _GPU_DRIVERS))


def import_ahead(config: RunConfig) -> None:
    """Begin with the imports of a run's jobs, in a process beside this one."""
    if forks(config):
        _serving()


def _serving() -> _Server:
    global _server
    with _lock:
        if _server is None or not _server.serves():
            if _server is not None:
                _server.close()
            _server = _Server()
        return _server


def _environment() -> dict[str, str]:
    """What libraries may have read when they were imported. A job gets all of its own in any case."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_READ}


@atexit.register
def _end() -> None:
    if _server is not None:
        _server.close()
