"""Events survive the line of JSON between a job and its parent, figures that are not finite included."""

from __future__ import annotations

import math

import pytest

from cures_core.events import JobEvent, JobStopped, PartDone, StepDone
from cures_core.events import parse_event as parsed


@pytest.mark.parametrize(
    "event",
    [
        StepDone(epoch=1, seconds=0.1, last_step=9, metrics={"step": 4.0, "loss": 0.5, "reason": "complete"}),
        PartDone(part="eval", done=3, total=9),
        JobStopped(job="epoch", message="saved step 3"),
    ],
)
def test_an_event_is_read_as_it_was_told(event: JobEvent) -> None:
    assert parsed(event.model_dump_json().encode()) == event


def test_a_step_that_diverged_is_told() -> None:
    event = StepDone(epoch=1, seconds=0.1, last_step=9, metrics={"step": 4.0, "loss": math.nan, "grad_norm": math.inf})
    again = parsed(event.model_dump_json().encode())
    assert isinstance(again, StepDone)
    assert math.isnan(again.metrics["loss"])  # type: ignore[arg-type]
    assert again.figure("grad_norm") == math.inf
    assert again.figure("reward_mean") is None


@pytest.mark.parametrize("line", [b"", b"hello", b'{"event": "party"}', b'{"event": "part", "done": 1}'])
def test_what_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="validation error"):
        parsed(line)
