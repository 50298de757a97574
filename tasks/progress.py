"""Events of stages and their listeners: terminal, Prefect log, a file. Stages emit, listeners decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cures_core.events import Event

_listeners: list[Callable[[Event], None]] = []


@contextmanager
def listening(listener: Callable[[Event], None]) -> Iterator[None]:
    """Send every event of this process to `listener` while the block runs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def emit(event: Event) -> None:
    """Send an event to all listeners."""
    for listener in tuple(_listeners):
        listener(event)
