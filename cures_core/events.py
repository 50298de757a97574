"""What a run says while it goes on: a type for each event, and the line of JSON that a job tells its parent."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter


class _Event(BaseModel):
    # A step whose loss is not finite is told too.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class RunOpened(_Event):
    """A run was started, or is gone on with."""

    event: Literal["run"] = "run"
    run: str


class StageStarted(_Event):
    """A stage looks for its record, and works where there is none. `stage`: name and label, as in "train_epoch 3"."""

    event: Literal["stage_started"] = "stage_started"
    stage: str


class StageWaiting(_Event):
    """Another process is at the same stage, so this one waits for its record. `holder`: who, in words."""

    event: Literal["stage_waiting"] = "stage_waiting"
    stage: str
    holder: str


class StageEnded(_Event):
    """A stage has its record: committed before (`cached`), or after `seconds` of work."""

    event: Literal["stage_ended"] = "stage_ended"
    stage: str
    cached: bool
    seconds: float = 0.0
    figures: dict[str, JsonValue]


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


Event = RunOpened | StageStarted | StageWaiting | StageEnded | StepDone | PartDone | JobStopped
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


def parse_event(line: bytes) -> Event:
    """The event that a job wrote as a line of JSON. Raises `ValueError` for anything else."""
    return _EVENT.validate_json(line)
