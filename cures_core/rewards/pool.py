"""Knows how to run jobs in processes that may hang, crash or eat memory: hard deadlines, kills, fresh replacements.

One thread drives all children with a selector: no signals, no helper threads, so it works from any thread (one at a
time; the caller locks). A child leads its own session, holds nothing but pipes, and ends when its input ends.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from cures_core.errors import ChildFailed
from cures_core.rewards.wire import Frames, pack

STARTUP_S = 120.0
"""Seconds a child may take to import and get ready."""
JOBS_PER_CHILD = 2000
"""Jobs after which a child is replaced, because sympy's caches only grow."""
_MAX_FAILED_STARTS = 3

Job = dict[str, Any]
Reply = dict[str, Any]


class _Child:
    """One process: its pipes, its current job and its deadline (monotonic seconds)."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-m", "cures_core.rewards.child", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=_environment(),
            bufsize=0,
            start_new_session=True,
        )
        self.frames = Frames()
        self.ready = False
        self.job: int | None = None
        self.deadline = time.monotonic() + STARTUP_S
        self.served = 0

    @property
    def waiting(self) -> bool:
        """True while an answer (or the ready message) is due."""
        return not self.ready or self.job is not None

    def send(self, index: int, job: Job, timeout_s: float) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(pack(job))
        self.job, self.deadline = index, time.monotonic() + timeout_s

    def receive(self) -> list[Reply] | None:
        """Messages that have come; None where the child has closed its pipe or talks nonsense."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        try:
            return self.frames.feed(data) if data else None
        except ValueError:
            return None

    def end(self) -> str:
        """Kill and reap; what it wrote to stderr before it was ready."""
        self.process.kill()
        _, stderr = self.process.communicate()
        return str(stderr.decode(errors="replace"))


class Pool:
    """Up to `workers` children, started when there is work for them."""

    def __init__(
        self,
        workers: int,
        timeout_s: float,
        memory_mb: int,
        work: Literal["math", "regex"] = "math",
        jobs_per_child: int = JOBS_PER_CHILD,
    ) -> None:
        self._workers = workers
        self._timeout_s = timeout_s
        self._arguments = (work, str(timeout_s), str(memory_mb))
        self._jobs_per_child = jobs_per_child
        self._children: list[_Child] = []
        self._failed_starts = 0
        self.counts = {"jobs": 0, "timeouts": 0, "crashes": 0, "children": 0}

    def run(self, jobs: Sequence[Job]) -> list[Reply]:
        """One reply a job, in order: the child's, or {"outcome": "unknown", "reason": "timeout" or "crash"}.

        Raises `ChildFailed` where children cannot even be started.
        """
        replies: list[Reply | None] = [None] * len(jobs)
        queue = deque(range(len(jobs)))
        try:
            while None in replies:
                self._staff(queue)
                self._hand_out(queue, jobs)
                self._collect(replies)
        except BaseException:
            self._drop([child for child in self._children if child.waiting])
            raise
        self.counts["jobs"] += len(jobs)
        return [reply for reply in replies if reply is not None]

    def close(self) -> None:
        """End and reap all children. Safe to call twice."""
        self._drop(list(self._children))

    def _staff(self, queue: deque[int]) -> None:
        """Replace dead and worn-out children, as many as there is work for."""
        self._drop([c for c in self._children if c.process.poll() is not None and not c.waiting])
        self._drop([c for c in self._children if c.served >= self._jobs_per_child and not c.waiting])
        free = sum(child.job is None for child in self._children)
        for _ in range(min(self._workers - len(self._children), len(queue) - free)):
            self._children.append(_Child(self._arguments))
            self.counts["children"] += 1

    def _hand_out(self, queue: deque[int], jobs: Sequence[Job]) -> None:
        for child in [child for child in self._children if not child.waiting]:
            if not queue:
                return
            try:
                child.send(queue[0], jobs[queue[0]], self._timeout_s)
            except BrokenPipeError:  # it died idle: the job was never begun, another child takes it
                self._drop([child])
            else:
                queue.popleft()

    def _collect(self, replies: list[Reply | None]) -> None:
        """Wait for the next answer or deadline."""
        busy = [child for child in self._children if child.waiting]
        if not busy:
            return
        with selectors.DefaultSelector() as selector:
            for child in busy:
                selector.register(child.process.stdout, selectors.EVENT_READ, child)  # type: ignore[arg-type]
            pause = max(0.0, min(child.deadline for child in busy) - time.monotonic())
            heard = [key.data for key, _ in selector.select(pause)]
        for child in heard:
            messages = child.receive()
            if messages is None:
                self._lost(child, "crash", replies)
            for message in messages or []:
                self._take(child, message, replies)
        for child in busy:
            if child not in heard and child.deadline <= time.monotonic():
                self._lost(child, "timeout", replies)

    def _take(self, child: _Child, message: Reply, replies: list[Reply | None]) -> None:
        if not child.ready:
            child.ready, self._failed_starts = True, 0
        elif child.job is not None:
            replies[child.job] = message
            child.job = None
            child.served += 1
            if message.get("retire"):
                self._drop([child])

    def _lost(self, child: _Child, reason: str, replies: list[Reply | None]) -> None:
        self._children.remove(child)
        said = child.end()
        if child.job is not None:
            replies[child.job] = {"outcome": "unknown", "reason": reason}
            self.counts["timeouts" if reason == "timeout" else "crashes"] += 1
            return
        self._failed_starts += 1
        if self._failed_starts >= _MAX_FAILED_STARTS:
            last_line = said.strip().rpartition("\n")[2] or f"{reason} within {STARTUP_S:g} s"
            raise ChildFailed(
                f"the math verifier's process does not start ({last_line}). "
                f"Try: {sys.executable} -m cures_core.rewards.child math 2 512"
            )

    def _drop(self, children: Sequence[_Child]) -> None:
        for child in children:
            self._children.remove(child)
            child.end()


def _environment() -> dict[str, str]:
    """No secrets, a fixed hash seed (sympy's orders depend on it), and the way to this package."""
    return {
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
        "LANG": "C.UTF-8",
    }
