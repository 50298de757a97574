"""Knows how to run jobs in processes that may hang, crash or eat memory: hard deadlines, kills, fresh replacements.

One thread drives all workers with a selector: no signals, no helper threads, so it works from any thread (one at a
time; the caller locks). Workers are forked from a template that has everything imported (`child`), so replacing one
that was killed takes milliseconds, not the seconds of a start. They hold nothing but a socket, and end when it ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cures_core.errors import ChildFailed, ConfigError
from cures_core.failures import Scene, machine_failure
from cures_core.rewards.wire import PID_BYTES, Frames, pack

STARTUP_S = 120.0
"""Seconds a template may take to import and get ready, and to answer."""
JOBS_PER_CHILD = 2000
"""Jobs after which a worker is replaced, because sympy's caches only grow."""
_MAX_FAILED_STARTS = 3
_KILL_S = 5.0
"""Longest wait for the end of a process that was killed."""
_START = Scene("the verifier's process", sys.executable, less_memory="leave the process more")

Job = dict[str, Any]
Reply = dict[str, Any]


class _Template:
    """The process that workers are forked from. Raises OSError where it does not start, or does not answer."""

    def __init__(self, arguments: Sequence[str]) -> None:
        own = is_own(arguments[0])
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-m", "cures_core.rewards.child", *arguments],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd=None if own else "/",
                env=_own_environment() if own else _environment(arguments[0]),
                start_new_session=True,
            )
        self._control.settimeout(STARTUP_S)

    def wait(self) -> None:
        """Until it is ready. Raises `ConfigError` where it says that it cannot be."""
        frames, said = Frames(), list[Reply]()
        while not said:
            if not (data := self._control.recv(1 << 10)):
                raise ConnectionResetError("it ended before it was ready")
            said = frames.feed(data)
        if "refused" in said[0]:
            raise ConfigError(str(said[0]["refused"]))

    def fork(self) -> _Child:
        """A worker of its own socket."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [b"f"], [theirs.fileno()])
        data, descriptors, _, _ = socket.recv_fds(self._control, PID_BYTES, 1)
        if len(descriptors) != 1:
            ours.close()
            raise ConnectionResetError("it has not forked a worker")
        return _Child(int.from_bytes(data, "big"), descriptors[0], ours)

    def end(self) -> str:
        """Kill and reap; what it wrote to stderr."""
        self._control.close()
        self._process.kill()
        _, stderr = self._process.communicate()
        return str(stderr.decode(errors="replace"))


class _Child:
    """A worker: its process id and descriptor, its socket, its current job and its deadline (monotonic seconds)."""

    def __init__(self, pid: int, handle: int, pipe: socket.socket) -> None:
        self.pid, self._handle, self.pipe = pid, handle, pipe
        self._frames = Frames()
        self.job: int | None = None
        self.deadline = 0.0
        self.served = 0

    @property
    def alive(self) -> bool:
        return not self._ends_within(0.0)

    def send(self, index: int, job: Job, timeout_s: float) -> None:
        """Raises `ConnectionError` where it is not there to take it, `TimeoutError` where it does not."""
        self.pipe.settimeout(timeout_s)
        self.pipe.sendall(pack(job))
        self.job, self.deadline = index, time.monotonic() + timeout_s

    def receive(self) -> list[Reply] | None:
        """Messages that have come; None where the worker has closed its socket or talks nonsense."""
        try:
            data = self.pipe.recv(1 << 16)
            return self._frames.feed(data) if data else None
        except (ConnectionError, ValueError):
            return None

    def end(self) -> None:
        """Kill, with what it has started, and wait until it is gone."""
        self.pipe.close()
        with contextlib.suppress(ProcessLookupError):  # without its socket it may end by itself in between
            if self.alive and os.getpgid(self.pid) == self.pid:  # alive, so its number is nobody else's
                os.killpg(self.pid, signal.SIGKILL)
        try:
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        except ProcessLookupError:
            pass
        else:
            self._ends_within(_KILL_S)
        os.close(self._handle)

    def _ends_within(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(1000 * seconds))


class Pool:
    """Up to `workers` workers, forked when there is work for them. `work`: as `child` lists them."""

    def __init__(
        self,
        workers: int,
        timeout_s: float,
        memory_mb: int,
        work: str = "math",
        jobs_per_child: int = JOBS_PER_CHILD,
    ) -> None:
        self._workers = workers
        self._timeout_s = timeout_s
        self._arguments = (work, str(timeout_s), str(memory_mb))
        self._jobs_per_child = jobs_per_child
        self._template: _Template | None = None
        self._children: list[_Child] = []
        self.counts = {"jobs": 0, "timeouts": 0, "crashes": 0, "children": 0}

    def run(self, jobs: Sequence[Job]) -> list[Reply]:
        """One reply a job, in order: the worker's, or {"outcome": "unknown", "reason": "timeout" or "crash"}.

        Raises `ChildFailed` where workers cannot even be started, and what the table of failures says where it is the
        machine that refuses it.
        """
        replies: list[Reply | None] = [None] * len(jobs)
        queue = deque(range(len(jobs)))
        try:
            while None in replies:
                self._staff(queue)
                self._hand_out(queue, jobs, replies)
                self._collect(replies)
        except BaseException:
            self._drop([child for child in self._children if child.job is not None])
            raise
        self.counts["jobs"] += len(jobs)
        return [reply for reply in replies if reply is not None]

    def start(self) -> None:
        """Start a worker, so that a function that cannot be used is known. Raises `ConfigError`."""
        if not self._children:
            self._children.append(self._forked())
            self.counts["children"] += 1

    def close(self) -> None:
        """End and reap all processes. Safe to call twice."""
        self._drop(list(self._children))
        self._end_template()

    def _staff(self, queue: deque[int]) -> None:
        """Replace dead and worn-out workers, as many as there is work for."""
        idle = [child for child in self._children if child.job is None]
        self._drop([child for child in idle if child.served >= self._jobs_per_child or not child.alive])
        free = sum(child.job is None for child in self._children)
        for _ in range(min(self._workers - len(self._children), len(queue) - free)):
            self._children.append(self._forked())
            self.counts["children"] += 1

    def _forked(self) -> _Child:
        """A new worker; the template is started where there is none, and again where it has died."""
        for _ in range(_MAX_FAILED_STARTS):
            try:
                return self._started().fork()
            except OSError as error:
                failure = self._end_template().strip().rpartition("\n")[2] or str(error)
                refused = machine_failure(error, _START)
        raise refused or ChildFailed(
            f"the verifier's process does not start ({failure}). "
            f"Try: {sys.executable} -m cures_core.rewards.child {' '.join(self._arguments)} < /dev/null"
        )

    def _started(self) -> _Template:
        if self._template is None:
            self._template = _Template(self._arguments)
            try:
                self._template.wait()
            except ConfigError:
                self._end_template()
                raise
        return self._template

    def _end_template(self) -> str:
        """What it wrote to stderr."""
        output = "" if self._template is None else self._template.end()
        self._template = None
        return output

    def _hand_out(self, queue: deque[int], jobs: Sequence[Job], replies: list[Reply | None]) -> None:
        for child in [child for child in self._children if child.job is None]:
            if not queue:
                return
            try:
                child.send(queue[0], jobs[queue[0]], self._timeout_s)
            except ConnectionError:  # it died idle: the job was never begun, another worker takes it
                self._drop([child])
            except TimeoutError:
                child.job = queue.popleft()
                self._lost(child, "timeout", replies)
            except ValueError as error:
                replies[queue.popleft()] = {"outcome": "unknown", "reason": str(error)}
            else:
                queue.popleft()

    def _collect(self, replies: list[Reply | None]) -> None:
        """Wait for the next answer or deadline."""
        busy = [child for child in self._children if child.job is not None]
        if not busy:
            return
        with selectors.DefaultSelector() as selector:
            for child in busy:
                selector.register(child.pipe, selectors.EVENT_READ, child)
            pause = max(0.0, min(child.deadline for child in busy) - time.monotonic())
            ready = [key.data for key, _ in selector.select(pause)]
        for child in ready:
            messages = child.receive()
            if messages is None:
                self._lost(child, "crash", replies)
            for message in messages or []:
                self._take(child, message, replies)
        for child in busy:
            if child not in ready and child.deadline <= time.monotonic():
                self._lost(child, "timeout", replies)

    def _take(self, child: _Child, message: Reply, replies: list[Reply | None]) -> None:
        if child.job is not None:
            replies[child.job] = message
            child.job = None
            child.served += 1
            if message.get("retire"):
                self._drop([child])

    def _lost(self, child: _Child, reason: str, replies: list[Reply | None]) -> None:
        assert child.job is not None
        replies[child.job] = {"outcome": "unknown", "reason": reason}
        self.counts["timeouts" if reason == "timeout" else "crashes"] += 1
        self._drop([child])

    def _drop(self, children: Sequence[_Child]) -> None:
        for child in children:
            self._children.remove(child)
            child.end()


def is_own(work: str) -> bool:
    """Is it a user's function or environment? Those are trusted with this process's variables and folder."""
    return ":" in work


def _own_environment() -> dict[str, str]:
    """This process's, with the way to all modules that it finds itself."""
    return {**os.environ, "PYTHONPATH": _own_path(), "PYTHONHASHSEED": "0"}


def _own_path() -> str:
    return os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)


def _environment(work: str = "") -> dict[str, str]:
    """No secrets, a fixed hash seed (sympy's orders depend on it), and the way to this package."""
    return {
        "PYTHONPATH": _own_path() if work == "gym" else str(Path(__file__).resolve().parents[2]),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
        "LANG": "C.UTF-8",
    }
