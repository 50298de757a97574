"""Events of stages and their listeners: terminal, Prefect log, a file. Stages emit, listeners decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cures_core.events import JobEvent
from tasks.runs.figures import Figures
from tasks.runs.records import Record


@dataclass(frozen=True)
class RunOpened:
    """A run was started, or is gone on with."""

    run: str


@dataclass(frozen=True)
class StageStarted:
    """A stage looks for its record, and works where there is none. `stage`: name and label, as in "train_epoch 3"."""

    stage: str


@dataclass(frozen=True)
class StageWaiting:
    """Another process is at the same stage, so this one waits for its record. `holder`: who, in words."""

    stage: str
    holder: str


@dataclass(frozen=True)
class StageEnded:
    """A stage has its record: `cached` where it was committed before."""

    stage: str
    record: Record[Figures]
    cached: bool


Event = JobEvent | RunOpened | StageStarted | StageWaiting | StageEnded

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
