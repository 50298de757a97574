"""Progress in the flow run's log, so that the Prefect UI tells what a terminal would."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.logging import get_run_logger

from cures_core.events import StepDone
from cures_core.failures import explaining
from cures_core.secrets import mask_logs
from flows.cli.console import Eta, stage_line, step_line, waiting_line
from tasks.progress import Event, RunOpened, StageEnded, StageWaiting, listening

_EVERY_S = 15.0


@contextmanager
def errors_of_ours() -> Iterator[None]:
    """Around a flow: only errors of this project leave it, for they become the run's state, and its log shows no secret
    either, though Prefect logs where an error came from."""
    mask_logs()
    with explaining():
        yield


@contextmanager
def logging_progress(entropy_alarm: float = 0.0) -> Iterator[None]:
    """Log the end of each stage, and a training step at most every 15 s, while the block runs in a flow.

    Lines start with the name that the run has in the store: a log collector can find them by it.
    """
    logger, eta, next_at, run = get_run_logger(), Eta(), 0.0, ""

    def listen(event: Event) -> None:
        nonlocal next_at, run
        if isinstance(event, RunOpened):
            run = event.run
            logger.info(f"{run}: started, or gone on with")
        elif isinstance(event, StageEnded):
            logger.info(f"{run}: {stage_line(event)}")
        elif isinstance(event, StageWaiting):
            logger.info(f"{run}: {waiting_line(event)}")
        elif isinstance(event, StepDone):
            left = eta.left(event)
            if time.monotonic() >= next_at:
                next_at = time.monotonic() + _EVERY_S
                logger.info(f"{run}: {step_line(event, left, entropy_alarm)}")

    with listening(listen):
        yield
