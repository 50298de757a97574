"""Knows several servers that hold the same weights: which are in service, and which of them takes the next call."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cures_core.config.rollout import VllmServerRolloutConfig
from cures_core.errors import ConfigError, EngineFailed
from cures_core.rollout.vllm.calls import Call, Sampled
from cures_core.rollout.vllm.endpoint import UNKNOWN_LOGPROBS, Endpoint, EndpointDown, Served
from cures_core.rollout.vllm.local_server import LocalServer
from cures_core.rollout.vllm.probe import Floats, check_arrival

_LOOK_S = 0.2
_HEALTH_EVERY_S = 2.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_SAME_WEIGHTS = 1e-3
"""Nats by which the fingerprint of a server may move while nobody gives it new weights."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Member:
    """One server of the fleet and what is known of it. `process` is None for a server that is not ours."""

    def __init__(self, endpoint: Endpoint, process: LocalServer | None = None) -> None:
        self.endpoint, self.process = endpoint, process
        self.served: Served | None = None
        self.folder: Path | None = None
        self.prints: tuple[Floats, Floats] | None = None
        self.in_service = self.asleep = self.starting = self.started = False
        self.in_flight = self.failures = self.restarts = 0
        self.trouble = "not asked yet"

    @property
    def url(self) -> str:
        return self.endpoint.url

    def forget(self) -> None:
        """It was started anew, nobody knows with what."""
        self.served, self.folder, self.prints, self.asleep = None, None, None, False


class Fleet:
    """`probe_ids`: tokens of the fingerprint. All coroutines belong to one event loop, one at a time."""

    def __init__(self, members: Sequence[Member], cfg: VllmServerRolloutConfig, probe_ids: Sequence[int]) -> None:
        self.members, self.cfg = members, cfg
        self._probe_ids = probe_ids
        self._weights: tuple[Path, Floats] | None = None
        self._last_service = time.monotonic()
        # Only the moments of retries depend on it, no result does.
        self._jitter = np.random.default_rng(os.getpid())

    @property
    def gap(self) -> float:
        """Largest difference (nats) between the trainer and the servers that took the weights, on the probe."""
        return max(float(np.abs(m.prints[0] - m.prints[1]).max()) for m in self._whole() if m.prints is not None)

    @property
    def served(self) -> list[Served]:
        """What the servers that took the weights say of themselves."""
        return [m.served for m in self._whole() if m.served is not None]

    async def take(self, folder: Path, trainer: Floats) -> None:
        """Give every server the weights in `folder`, whose fingerprint is `trainer`.

        One that is out of service gets them when it is back. Raises `EngineFailed` where one answers with another
        fingerprint, and where none is back within `outage_timeout_s`.
        """
        self._weights = folder, trainer
        self._begin()
        async with _together([self._try(member) for member in self.members]) as tries:
            await asyncio.gather(*tries)
        if not any(member.in_service for member in self.members):
            async with _together([self._restore(member) for member in self.members]) as tasks:
                while not any(member.in_service for member in self.members):
                    await self._look(tasks)

    async def sleep(self, level: int) -> None:
        """Give back device memory until the next weights or calls."""
        async with _together([self._put_to_sleep(m, level) for m in self._whole() if not m.asleep]) as tasks:
            await asyncio.gather(*tasks)

    async def run(self, calls: Sequence[Call], finished: Callable[[str, list[Sampled]], None]) -> None:
        """`finished(name, completions)` as each call ends. A call whose server fails goes to another one.

        Raises `EngineFailed` where no server has been in service for `outage_timeout_s`, and where a call has failed
        `max_attempts` times. Any exception, one of `finished` too, cancels what is open.
        """
        self._begin()
        queue = _Queue(calls, self.members)
        # Together, so that the first to answer does not take all calls. Who was away comes when it is ready.
        async with _together([self._try(member) for member in self._whole()]) as tries:
            await asyncio.gather(*tries, return_exceptions=True)
        async with _together([self._serve(member, queue) for member in self.members]) as tasks:
            for _ in calls:
                finished(*await self._next(queue, tasks))

    async def close(self) -> None:
        for member in self.members:
            await member.endpoint.close()
            if member.process is not None:
                member.process.stop()

    def _whole(self) -> list[Member]:
        return [m for m in self.members if self._weights is not None and m.folder == self._weights[0]]

    def _begin(self) -> None:
        """Nobody is in service until it has been asked: a server may have been started anew since the last time."""
        self._last_service = time.monotonic()
        for member in self.members:
            member.in_service, member.in_flight, member.failures, member.restarts = False, 0, 0, 0

    async def _next(self, queue: _Queue, tasks: Sequence[asyncio.Future[Any]]) -> tuple[str, list[Sampled]]:
        result = asyncio.ensure_future(queue.results.get())
        try:
            while not result.done():
                await self._look([result, *tasks])
            return result.result()
        finally:
            result.cancel()

    async def _look(self, tasks: Sequence[asyncio.Future[Any]]) -> None:
        """Wait a moment; raise what a task has raised, and `EngineFailed` after too long an outage."""
        done, _ = await asyncio.wait(tasks, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        now = time.monotonic()
        if any(member.in_service or member.starting for member in self.members):  # a start has its own limit
            self._last_service = now
        if now > self._last_service + self.cfg.outage_timeout_s:
            causes = "; ".join(member.trouble for member in self.members)
            raise EngineFailed(f"no vLLM server in service for {self.cfg.outage_timeout_s:g} s: {causes}")

    async def _serve(self, member: Member, queue: _Queue) -> None:
        """Give calls to one server; after a failure only when it is well again and has the weights."""
        while True:
            if not member.in_service:
                await self._restore(member)
            try:
                lanes = [self._lane(member, queue) for _ in range(self.cfg.max_in_flight)]
                async with _together([self._watch(member), *lanes]) as tasks:
                    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
                    for task in done:
                        task.result()
            except EndpointDown as error:
                self._out(member, error)
                queue.changed.set()
                _log.warning("%s; its calls go to the other servers", error)

    async def _lane(self, member: Member, queue: _Queue) -> None:
        """One call at a time."""
        while True:
            item = await queue.take(member)
            try:
                sampled = await member.endpoint.complete(_model(member), item.call, self.cfg.call_timeout_s)
            except EndpointDown as error:
                item.failed_at.append(member)
                if len(item.failed_at) >= self.cfg.max_attempts:
                    raise EngineFailed(
                        f"call {item.call.name} failed {len(item.failed_at)} times, last: {error}"
                    ) from error
                queue.give_back(item)
                raise
            except asyncio.CancelledError:
                queue.give_back(item)
                raise
            finally:
                queue.left(member)
            member.failures = 0
            queue.results.put_nowait((item.call.name, sampled))

    async def _watch(self, member: Member) -> None:
        """A server whose machine has gone closes no connection: only its silence tells."""
        while True:
            await asyncio.sleep(_HEALTH_EVERY_S)
            await member.endpoint.health(self.cfg.health_timeout_s)

    async def _restore(self, member: Member) -> None:
        """Return when the server is in service. Pauses between attempts grow, with jitter."""
        while True:
            if member.failures:  # not tenacity's: calls that fail elsewhere count too, and one that succeeds resets it
                pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**member.failures)
                await asyncio.sleep(pause * self._jitter.uniform(0.5, 1.0))
            try:
                if await self._try(member):
                    return
            except EngineFailed as error:  # it is well, but holds or computes something else
                self._out(member, error)
                _log.warning("%s", error)

    async def _try(self, member: Member) -> bool:
        """Is the server well, and does it hold the weights? If not, it gets them. False: it is out of service.

        Raises `EngineFailed` for one whose fingerprint stays another.
        """
        try:
            if member.process is not None and not member.process.alive:
                await self._start(member, member.process)
            await self._check(member)
        except EndpointDown as error:
            self._out(member, error)
            _log.warning("%s", error)
            if member.process is not None:  # nobody else will mend it
                member.process.stop()
            return False
        member.in_service = True
        return True

    async def _check(self, member: Member) -> None:
        assert self._weights is not None
        folder, trainer = self._weights
        cfg, server = self.cfg, member.endpoint
        await server.health(cfg.health_timeout_s)
        await self._check_served(member)
        if member.folder == folder and member.prints is not None and not member.asleep:
            now = await self._probe(member)
            if float(np.abs(now - member.prints[1]).max()) <= _SAME_WEIGHTS:
                return
            _log.warning("%s: holds other weights than it was given; it was started anew", member.url)
            member.forget()
            await self._check_served(member)
        if member.folder != folder or member.asleep:
            before, asleep = member.prints, member.asleep
            member.folder = None
            await server.load(folder, cfg.sync_timeout_s, asleep=asleep)
            member.asleep, member.prints = False, before
        prints = trainer, await self._probe(member)
        try:
            check_arrival(*prints, member.prints, cfg.fingerprint_bound)
        except EngineFailed as error:
            raise EngineFailed(f"{member.url}: {error}") from error
        member.folder, member.prints = folder, prints

    async def _check_served(self, member: Member) -> None:
        if member.served is None:
            mode = None if member.process is None else member.process.logprobs_mode
            member.served = await member.endpoint.served(self.cfg.sync_timeout_s, mode)
        check_logprobs(member, self.cfg)

    async def _probe(self, member: Member) -> Floats:
        return await member.endpoint.probe(_model(member), self._probe_ids, self.cfg.sync_timeout_s)

    async def _start(self, member: Member, process: LocalServer) -> None:
        """Start our own server with the current weights, and wait until it answers."""
        assert self._weights is not None
        member.forget()
        member.restarts += member.started
        member.started = True
        if member.restarts > self.cfg.max_restarts:
            raise EngineFailed(f"{member.url}: {self.cfg.max_restarts} restarts did not help; {member.trouble}")
        deadline = time.monotonic() + self.cfg.start_timeout_s
        member.starting = True
        try:
            process.start(self._weights[0])
            while True:
                try:
                    await member.endpoint.health(self.cfg.health_timeout_s)
                    break
                except EndpointDown:
                    if not process.alive or time.monotonic() > deadline:
                        raise EndpointDown(process.failure(self.cfg.start_timeout_s)) from None
                await asyncio.sleep(_LOOK_S)
        finally:
            member.starting = False
        member.folder = self._weights[0]

    async def _put_to_sleep(self, member: Member, level: int) -> None:
        try:
            await member.endpoint.sleep(level, self.cfg.sync_timeout_s)
            member.asleep = True
        except EndpointDown as error:  # the next call finds out what is the matter
            _log.warning("%s", error)

    def _out(self, member: Member, error: Exception) -> None:
        member.in_service, member.trouble = False, str(error)
        member.failures += 1


def check_logprobs(member: Member, cfg: VllmServerRolloutConfig) -> None:
    """Raises `ConfigError` where the server was started to give other log-probabilities than `cfg` needs."""
    wanted = "processed_logprobs" if cfg.top_p == 1 else "raw_logprobs"
    either = cfg.top_p == 1 and cfg.temperature in (0, 1)
    mode = wanted if member.served is None else member.served.logprobs_mode
    if mode != wanted and not (either and mode in ("raw_logprobs", UNKNOWN_LOGPROBS)):
        raise ConfigError(
            f"{member.url} gives {mode}; rollout.top_p = {cfg.top_p} with temperature = {cfg.temperature} "
            f"needs a server started with --logprobs-mode {wanted}"
        )


@dataclass(slots=True)
class _Item:
    """A call and the servers that have failed on it."""

    call: Call
    failed_at: list[Member] = field(default_factory=list)


class _Queue:
    """Calls that wait, those that failed somewhere before all others, and results."""

    def __init__(self, calls: Sequence[Call], members: Sequence[Member]) -> None:
        self._members = members
        self._failed: list[_Item] = []
        self._fresh = deque(_Item(call) for call in calls)
        self.changed = asyncio.Event()
        self.results: asyncio.Queue[tuple[str, list[Sampled]]] = asyncio.Queue()

    async def take(self, member: Member) -> _Item:
        """A call that `member` should have: no other server that could take it has fewer in flight."""
        while True:
            self.changed.clear()
            if (item := self._next(member)) is not None:
                member.in_flight += 1
                self.changed.set()
                return item
            await self.changed.wait()

    def _next(self, member: Member) -> _Item | None:
        for at, item in enumerate(self._failed):
            if self._should(member, item):
                return self._failed.pop(at)
        if self._fresh and self._should(member, self._fresh[0]):
            return self._fresh.popleft()
        return None

    def _should(self, member: Member, item: _Item) -> bool:
        """Not one it failed on, while there is another server for it."""
        others = [m for m in self._members if m.in_service and m is not member and m not in item.failed_at]
        if member in item.failed_at:
            return not others
        return all(member.in_flight <= other.in_flight for other in others)

    def left(self, member: Member) -> None:
        """A call of `member` has ended, one way or another."""
        member.in_flight -= 1
        self.changed.set()

    def give_back(self, item: _Item) -> None:
        if item.failed_at:
            self._failed.append(item)
        else:
            self._fresh.appendleft(item)
        self.changed.set()


def _model(member: Member) -> str:
    return member.served.model if member.served is not None else ""


@asynccontextmanager
async def _together(work: Sequence[Coroutine[object, object, T]]) -> AsyncIterator[list[asyncio.Task[T]]]:
    """Tasks that end with the block, by cancellation if need be."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
