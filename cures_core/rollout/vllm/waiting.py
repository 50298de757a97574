"""Knows how to wait with a deadline for calls that may never return."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from cures_core.errors import EngineFailed

T = TypeVar("T")
_POLL_S = 0.2
_GRACE_S = 2.0


class Caller:
    """Runs calls one after another in a thread of its own, which is left behind where one does not come back."""

    def __init__(self, name: str, alive: Callable[[], bool]) -> None:
        """`alive` says whether the process that the calls depend on still runs; it is asked several times a second."""
        self._name, self._alive = name, alive
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] | None = None

    def call(self, work: Callable[[], T], what: str, limit_s: float) -> T:
        """The result of `work()`, or its exception.

        Raises `EngineFailed` after `limit_s` seconds, or soon after the process died; the message names `what`.
        """
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(self._calls,), name=self._name, daemon=True).start()
        done: Future[T] = Future()
        self._calls.put((work, done))
        deadline = time.monotonic() + limit_s
        died_at: float | None = None
        while True:
            try:
                return done.result(_POLL_S)
            except TimeoutError:
                if done.done():
                    raise
            now = time.monotonic()
            if died_at is None and not self._alive():
                died_at = now
            # The library may be about to say more than that the process is gone.
            if died_at is not None and now > died_at + _GRACE_S:
                self.leave()
                raise EngineFailed(f"{self._name}: the engine's process died while waiting for {what}")
            if now > deadline:
                self.leave()
                raise EngineFailed(f"{self._name}: waited {limit_s:g} s for {what}")

    def leave(self) -> None:
        """Let the thread end, now or when its call returns."""
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None


def _serve(calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]) -> None:
    while (item := calls.get()) is not None:
        work, done = item
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)
        del item, work, done
