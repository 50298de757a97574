"""Events of a job, and the line of JSON by which its parent gets them. Those of runs and stages: `tasks.progress`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Event(BaseModel):
    # A step whose loss is not finite is told too.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class StepDone(_Event):
    """An optimizer step of an epoch; `metrics` is its line of metrics.jsonl, `last_step` the epoch's last."""

    event: Literal["step"] = "step"
    epoch: int
    seconds: float
    last_step: int
    metrics: dict[str, float | str]

    @property
    def step(self) -> int:
        return int(self.metrics["step"])

    def figure(self, name: str) -> float | None:
        """A metric of that name; None where the step has none, as of a mean over nothing."""
        value = self.metrics.get(name)
        return value if isinstance(value, float) else None


class PartDone(_Event):
    """So much of a long stage is done: prompts, items, steps or shards, as `part` says."""

    event: Literal["part"] = "part"
    part: str
    done: int
    total: int


class JobStopped(_Event):
    """A job that was asked to stop has ended; `message` says what it saved."""

    event: Literal["stopped"] = "stopped"
    job: str
    message: str


JobEvent = StepDone | PartDone | JobStopped
_EVENT: TypeAdapter[JobEvent] = TypeAdapter(Annotated[JobEvent, Field(discriminator="event")])


def parse_event(line: bytes) -> JobEvent:
    """The event that a job wrote as a line of JSON. Raises `ValueError` for anything else."""
    return _EVENT.validate_json(line)
