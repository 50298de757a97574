"""The stages of a run with what each has cost and said: what `cures runs show` prints."""

from __future__ import annotations

from pydantic import Field, JsonValue

from cures_core.config.base import Strict
from tasks.runs.notes import made_before, noted_record, read_started, stage_notes
from tasks.storage import Store


class ShownStage(Strict):
    """A stage that a run has reached."""

    stage: str
    """Stage name."""
    label: str
    """Tells stages of one name apart, such as the epoch."""
    key: str
    """Key of its record."""
    cached: bool
    """Was it made before the run was started, by another one? Its own, which a resumed run finds, are not cached."""
    noted_at: str
    """UTC time at which the run, as it was last started, came by it; ISO 8601."""
    seconds: float = 0.0
    """Wall time of its work, whoever did it; 0 where the record is gone."""
    machine: dict[str, str] = Field(default_factory=dict)
    """What it was made on."""
    figures: dict[str, JsonValue] = Field(default_factory=dict)
    """What it says of its outcome."""


def stages_of(store: Store, name: str) -> list[ShownStage]:
    """Oldest first. Raises `ConfigError` where there is no such run, `CorruptArtifact`."""
    started, shown = read_started(store, name), []
    for note in stage_notes(store, name):
        one, record = ShownStage.model_validate(note), noted_record(store, note)
        if record is not None:
            more = {"seconds": record.seconds, "machine": record.machine}
            figures = record.figures.model_dump(mode="json")
            one = one.model_copy(update={**more, "figures": figures, "cached": made_before(started, record)})
        shown.append(one)
    return shown
