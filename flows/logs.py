"""Progress in the flow run's log, so that the Prefect UI tells what a terminal would."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prefect.logging import get_run_logger

from flows.console import Eta, stage_line, step_line
from tasks.progress import listening

_EVERY_S = 15.0


@contextmanager
def logging_progress() -> Iterator[None]:
    """Log the end of each stage, and a training step at most every 15 s, while the block runs in a flow."""
    logger, eta, next_at = get_run_logger(), Eta(), 0.0

    def listen(event: Mapping[str, Any]) -> None:
        nonlocal next_at
        if event["event"] == "stage" and event["status"] != "start":
            logger.info(stage_line(event))
        elif event["event"] == "step":
            left = eta.left(event)
            if time.monotonic() >= next_at:
                next_at = time.monotonic() + _EVERY_S
                logger.info(step_line(event, left))

    with listening(listen):
        yield
