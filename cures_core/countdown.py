"""How much of a long measurement is done, and about how long the rest will take: lines on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable


class Countdown:
    """Counts parts of a known number, from several threads too. Parts that were done before are left out of the
    estimate, which is the mean of those that were done, as often as are left."""

    def __init__(self, what: str, total: int, now: Callable[[], float] = time.monotonic) -> None:
        self._what, self._total, self._now = what, total, now
        self._done, self._found, self._started = 0, 0, now()
        self._lock = threading.Lock()
        self._say(f"{total} {what}")

    def found(self) -> None:
        """A part was there already."""
        with self._lock:
            self._found += 1

    def done(self, part: str = "") -> None:
        """A part was done; `part` says which, and what came of it."""
        with self._lock:
            self._done += 1
            so_far, left = self._done + self._found, self._total - self._done - self._found
            seconds = (self._now() - self._started) / self._done * left
            rest = f", about {clock_of(seconds)} left" if left else f", took {clock_of(self._now() - self._started)}"
            self._say(f"{self._what} {so_far}/{self._total}{f': {part}' if part else ''}{rest}")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def clock_of(seconds: float) -> str:
    """Minutes and seconds, as in 2:05."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
