"""Knows which events of a run are figures, and hands them to the configured trackers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from cures_core.events import StepDone
from tasks.progress import Event, StageEnded, listening
from tasks.runs.figures import EvaluateFigures
from tasks.runs.records import RunRef

_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """One run in one tracker."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Figures of an optimizer step."""
        ...

    def close(self, completed: bool) -> None:
        """The run has ended, well or not."""
        ...


@contextmanager
def tracking(run: RunRef) -> Iterator[None]:
    """Send steps and scores of this process's events to the trackers of the run's configuration.

    Raises `ConfigError` where a tracker's package is missing. Once running, a tracker that fails is left out with a
    warning: figures are in metrics.jsonl anyway.
    """
    listener = _Listener(_trackers(run), run.config.steps_per_epoch)
    completed = False
    try:
        with listening(listener):
            yield
        completed = True
    finally:
        listener.close(completed)


def _trackers(run: RunRef) -> list[Tracker]:
    cfg, found = run.config.tracking, list[Tracker]()
    if cfg.mlflow is not None:
        from tasks.tracking.mlflow import MlflowTracker

        found.append(MlflowTracker(run, cfg.mlflow, cfg.mlflow_experiment))
    if cfg.tensorboard is not None:
        from tasks.tracking.tensorboard import TensorboardTracker

        found.append(TensorboardTracker(run, cfg.tensorboard))
    if cfg.wandb is not None:
        from tasks.tracking.wandb import WandbTracker

        found.append(WandbTracker(run, cfg.wandb))
    return found


class _Listener:
    def __init__(self, trackers: list[Tracker], steps_per_epoch: int) -> None:
        self._trackers, self._steps_per_epoch = trackers, steps_per_epoch

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            figures = {f"train/{k}": v for k, v in event.metrics.items() if isinstance(v, float)}
            self._log({**figures, "train/seconds": event.seconds}, event.step)
        elif isinstance(event, StageEnded) and isinstance(event.record.figures, EvaluateFigures):
            epoch = int(event.stage.rpartition(" ")[2])
            self._log(_scores(event.record.figures), epoch * self._steps_per_epoch)

    def _log(self, figures: Mapping[str, float], step: int) -> None:
        for tracker in tuple(self._trackers):
            try:
                tracker.log(figures, step)
            except Exception as error:  # whatever a foreign library raises: it must not cost a run
                self._leave_out(tracker, error)

    def close(self, completed: bool) -> None:
        for tracker in tuple(self._trackers):
            try:
                tracker.close(completed)
            except Exception as error:  # as above
                self._leave_out(tracker, error)

    def _leave_out(self, tracker: Tracker, error: Exception) -> None:
        self._trackers.remove(tracker)
        _log.warning("%s: %s; it hears no more of this run", type(tracker).__name__, error)


def _scores(figures: EvaluateFigures) -> dict[str, float]:
    return {
        f"eval/{suite}{end}": value
        for suite, score in figures.scores.items()
        for end, value in (("", score.value), ("_low", score.low), ("_high", score.high))
    }
