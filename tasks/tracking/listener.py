"""Knows which events of a run are figures, and hands them to the configured trackers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields

from cures_core.config.run import RunConfig
from cures_core.errors import CuresError
from cures_core.events import StepDone
from cures_core.kept_rollouts.keeper import shorten
from cures_core.kept_rollouts.table import KeptRollout
from tasks.progress import Event, StageEnded, listening
from tasks.runs.figures import EpochFigures, EvaluateFigures
from tasks.runs.prompt_stories import spread
from tasks.runs.records import Record, RunRef, has_figures
from tasks.runs.training import kept_in
from tasks.storage import open_store
from tasks.tracking.tracker import Cell, Table, Tracker, tracker_module

_log = logging.getLogger(__name__)


MOST_ROWS, MOST_TEXT_BYTES = 64, 2000
"""Of a table that is sent: rows, and the longest text in it."""


@contextmanager
def tracking(run: RunRef) -> Iterator[None]:
    """Send steps and scores of this process's events to the trackers of the run's configuration.

    Raises what starting a tracker does. Once running, a tracker that fails is left out with a
    warning: figures are in metrics.jsonl anyway.
    """
    listener = _Listener(_trackers(run), run.config)
    completed = False
    try:
        with listening(listener):
            yield
        completed = True
    finally:
        listener.close(completed)


def _trackers(run: RunRef) -> list[Tracker]:
    return [tracker_module(name).start(run) for name in run.config.tracking.chosen]


class _Listener:
    def __init__(self, trackers: list[Tracker], config: RunConfig) -> None:
        self._trackers, self._config = trackers, config

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            figures = {f"train/{k}": v for k, v in event.metrics.items() if isinstance(v, float)}
            self._log({**figures, "train/seconds": event.seconds}, event.step)
        elif isinstance(event, StageEnded):
            epoch = event.stage.rpartition(" ")[2]
            if has_figures(event.record, EvaluateFigures):
                self._log(_scores(event.record.figures), int(epoch) * self._config.steps_per_epoch)
            elif has_figures(event.record, EpochFigures) and self._trackers:
                self._log_rollouts(int(epoch), event.record)

    def _log(self, figures: Mapping[str, float], step: int) -> None:
        self._each(lambda tracker: tracker.log(figures, step))

    def _log_rollouts(self, epoch: int, record: Record[EpochFigures]) -> None:
        """What the epoch has kept; nothing where it cannot be read: whoever builds on the epoch will say so."""
        if record.files is None:
            return
        try:
            rows = kept_in(open_store(self._config.store), self._config, record) or ()
        except CuresError as error:
            _log.warning("rollouts of epoch %d are not tracked: %s", epoch, error)
            return
        if rows:
            self._each(
                lambda tracker: tracker.log_table(f"rollouts/epoch-{epoch:04d}", table_of(rows), record.figures.step)
            )

    def _each(self, send: Callable[[Tracker], None]) -> None:
        for tracker in tuple(self._trackers):
            try:
                send(tracker)
            except Exception as error:  # whatever a foreign library raises: it must not cost a run
                self._leave_out(tracker, error)

    def close(self, completed: bool) -> None:
        self._each(lambda tracker: tracker.close(completed))

    def _leave_out(self, tracker: Tracker, error: Exception) -> None:
        self._trackers.remove(tracker)
        _log.warning("%s: %s; it hears no more of this run", type(tracker).__name__, error)


def table_of(rows: Sequence[KeptRollout]) -> Table:
    """At most 64 of the rows, evenly over the epoch, with texts of at most 2,000 bytes."""
    columns = tuple(field.name for field in fields(KeptRollout))
    return Table(columns, tuple(tuple(map(_cell, astuple(row))) for row in spread(rows, MOST_ROWS)))


def _cell(value: Cell) -> Cell:
    return shorten(value, MOST_TEXT_BYTES)[0] if isinstance(value, str) else value


def _scores(figures: EvaluateFigures) -> dict[str, float]:
    return {
        f"eval/{suite}{end}": value
        for suite, score in figures.scores.items()
        for end, value in (("", score.value), ("_low", score.low), ("_high", score.high))
    }
