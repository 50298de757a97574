"""Knows what a tracker is: a module of its own beside this one, named as its setting in `tracking` and as its extra."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import httpx

from cures_core.config.tracking import TrackingConfig
from cures_core.errors import ConfigError
from tasks.runs.records import RunRef

Cell = str | int | float | bool | None
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Table:
    """Rows that all have the same columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


class Tracker(Protocol):
    """One run in one tracker."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Figures of an optimizer step."""
        ...

    def log_table(self, name: str, table: Table, step: int) -> None:
        """Texts and figures of an epoch; the same name again takes the place of what was logged before."""
        ...

    def close(self, completed: bool) -> None:
        """The run has ended, well or not."""
        ...


class TrackerModule(Protocol):
    """What such a module has. It imports the tracker's package only when one of these is called."""

    def start(self, run: RunRef) -> Tracker:
        """Raises `MissingExtra` where the package is missing, `ConfigError` where the tracker does not let a run in."""
        ...

    def probe(self, cfg: TrackingConfig) -> None:
        """Raises the same before a run does any work, as far as that can be known."""
        ...


def tracker_module(name: str) -> TrackerModule:
    """By a name of `TrackingConfig.chosen`."""
    return cast(TrackerModule, importlib.import_module(f"tasks.tracking.{name}"))


def require_answer(setting: str, url: str, remedy: str) -> None:
    """Raises `ConfigError` where nobody is at an address; their own clients try for minutes. Whatever is answered will
    do. Nothing is told to it, so whose certificate it has does not matter here: the clients have settings for that."""
    try:
        httpx.get(url, timeout=_TIMEOUT_S, verify=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigError(f"{setting}: {url} does not answer ({error}). {remedy}") from error
