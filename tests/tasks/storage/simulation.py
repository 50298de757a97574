"""A world in one process: simulated processes share a store, and a seeded scheduler stops, kills and interleaves them.

Every store operation and every sleep is a point where another process may run, for as long as it likes.
Time is a number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from greenlet import greenlet

from cures_core.errors import LeaseHeld, LeaseLost
from tasks.storage.lease import Holder, acquire, beat, release, this_process

TTL_S = 10.0
Commit = Callable[[Any, str, int, str, bytes, bytes | None], bool]


class Killed(BaseException):
    """Ends a simulated thread: nothing in the code under test may catch it."""


class Thread:
    """A thread that runs only while the scheduler lets it, from one `step` to the next."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.wake_at = 0.0
        self._greenlet = greenlet(work)

    @property
    def alive(self) -> bool:
        return not self._greenlet.dead

    def step(self) -> None:
        """Called by the thread: let others run."""
        self._greenlet.parent.switch()

    def resume(self) -> None:
        """Called by the scheduler: run on. An error of the thread comes out here."""
        self._greenlet.switch()

    def kill(self) -> None:
        try:
            self._greenlet.throw(Killed)
        except Killed:
            return


class World:
    """`run` plays one schedule; `violations` lists what must never happen."""

    def __init__(self, seed: int, commit: Commit, processes: int = 3, *, clock_steps: bool = False) -> None:
        """`clock_steps`: the machines' clocks jump now and then, by up to an hour."""
        self.rng = np.random.default_rng(seed)
        self.clock_steps = clock_steps
        self.commit, self.now, self.floor = commit, 0.0, 0
        self.values: dict[str, bytes] = {}
        self.violations: list[str] = []
        self.claims: list[tuple[str, bytes]] = []
        self.takeovers = self.finished = self.lost = 0
        self.running: Thread | None = None
        self.processes = [Process(self, i, float(self.rng.uniform(-3600, 3600))) for i in range(processes)]

    def run(self) -> None:
        while living := [p for p in self.processes if any(t.alive for t in p.threads)]:
            ready = [(p, t) for p in living for t in p.threads if t.alive and t.wake_at <= self.now]
            if not ready:
                self.now = min(t.wake_at for p in living for t in p.threads if t.alive)
                continue
            process, thread = ready[int(self.rng.integers(len(ready)))]
            chance = self.rng.random()
            if chance < 0.04:
                process.pause_until(self.now + float(self.rng.uniform(0, 3 * TTL_S)))
                continue
            if chance < 0.045:
                process.kill()
                continue
            if self.clock_steps and self.rng.random() < 0.02:
                process.step_clock(float(self.rng.uniform(-3600, 3600)))
            self.now += float(self.rng.exponential(0.05))
            self.running = thread
            thread.resume()
        self._check_claims()

    def wrote(self, key: str, data: bytes) -> None:
        if not key.startswith("leases/") and _token_of(key, data) < self.floor:
            self.violations.append(f"{key} = {data!r} written after token {self.floor} was held")

    def _check_claims(self) -> None:
        for key, data in self.claims:
            if key.startswith("record") and self.values.get(key) != data:
                self.violations.append(f"{key}: {data!r} was said to be committed, found {self.values.get(key)!r}")


def _token_of(key: str, data: bytes) -> int:
    """Who wrote a value: its first part, or of a model's history the run of the last entry."""
    return int(json.loads(data)["history"][-1]["run"] if key.startswith("models/") else data.split(b"/")[0])


class Process:
    """A worker that takes the lease and commits, and the thread that beats for it; both stop and die together."""

    def __init__(self, world: World, number: int, clock_offset: float) -> None:
        # Processes 0 and 1 share a machine, and so a clock; the others are elsewhere.
        here = this_process()
        self.world, self.number = world, number
        self.offset = 0.0 if number < 2 else clock_offset
        self.me = Holder(f"p{number}", f"machine {0 if number < 2 else number}", here.pid, here.started)
        self.token: int | None = None
        self.threads = [Thread(self._work), Thread(self._beat)]
        self.store = SimulatedStore(world)

    def clock(self) -> float:
        return self.world.now + self.offset

    def step_clock(self, seconds: float) -> None:
        """Of its machine: so of the other process there as well."""
        for process in self.world.processes:
            if process.me.machine == self.me.machine:
                process.offset += seconds

    def sleep(self, seconds: float) -> None:
        thread = self.world.running
        assert thread is not None
        thread.wake_at = self.world.now + seconds
        thread.step()

    def pause_until(self, then: float) -> None:
        for thread in self.threads:
            thread.wake_at = max(thread.wake_at, then)

    def kill(self) -> None:
        for thread in self.threads:
            thread.kill()

    def _work(self) -> None:
        for _ in range(6):
            try:
                self.token = acquire(self.store, "run", TTL_S, self.me, self.clock, self.sleep)
            except LeaseHeld:
                self.sleep(TTL_S / 2)
                continue
            self.world.takeovers += self.world.floor > 0
            self.world.floor = max(self.world.floor, self.token)
            try:
                self._commit_all(self.token)
                release(self.store, "run", self.token)
                self.token = None
                self.world.finished += 1
                return
            except LeaseLost:
                self.world.lost += 1
                self.token = None

    def _commit_all(self, token: int) -> None:
        for i in range(3):
            self.sleep(float(self.world.rng.uniform(0, 2)))
            self._commit(token, f"record-{token}-{i}", None)
            self._commit(token, f"record-{i}", None)
            self._commit(token, "pointer", self.store.get("pointer"))

    def _commit(self, token: int, key: str, expected: bytes | None) -> None:
        data = f"{token}/{key}/{self.world.rng.integers(1 << 30)}".encode()
        if self.world.commit(self.store, "run", token, key, data, expected):
            self.world.claims.append((key, data))

    def _beat(self) -> None:
        while self.threads[0].alive:
            self.sleep(TTL_S / 4)
            if self.token is not None:
                try:
                    beat(self.store, "run", self.token, self.clock)
                except LeaseLost:
                    continue


class SimulatedStore:
    """Values in memory; any other process may run before each operation."""

    def __init__(self, world: World) -> None:
        self.world = world

    def get(self, key: str) -> bytes | None:
        self._step()
        return self.world.values.get(key)

    def put(self, key: str, data: bytes) -> None:
        self._step()
        self.world.values[key] = data

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self.compare_and_swap(key, None, data)

    def compare_and_swap(self, key: str, expected: bytes | None, data: bytes) -> bool:
        self._step()
        if self.world.values.get(key) != expected:
            return False
        self.world.values[key] = data
        self.world.wrote(key, data)
        return True

    def _step(self) -> None:
        assert self.world.running is not None
        self.world.running.step()

    def delete(self, prefix: str) -> None:
        raise NotImplementedError

    def list(self, prefix: str) -> Iterator[str]:
        raise NotImplementedError

    def publish_files(self, prefix: str, folder: Path) -> str:
        raise NotImplementedError

    def verify_files(self, prefix: str, manifest: str | None = None, *, deep: bool = True) -> None:
        raise NotImplementedError

    def local_path(self, prefix: str) -> Path:
        raise NotImplementedError
