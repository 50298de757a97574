"""What a run has written of itself: how it was started, which records it used, how it ended. None of it decides.

Every value is checked when it is read: `CorruptArtifact` names it, and the command that writes it again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Literal, NoReturn

from pydantic import Field, JsonValue, with_config
from typing_extensions import TypedDict

from cures_core.config.base import Strict
from cures_core.config.storage import StoreConfig
from cures_core.config.urls import read_kept
from cures_core.errors import ConfigError, CorruptArtifact, LeaseLost
from tasks.runs.figures import Figures
from tasks.runs.records import F, Record, RunRef, read_any, read_record
from tasks.storage import Store
from tasks.storage.fencing import check_token, commit
from tasks.storage.lease import holder_gone
from tasks.storage.values import aside_command, decode_value, encode_value

Purpose = Literal["training", "evaluation", "benchmark"]
"""What a run was started for."""


class Started(Strict):
    """`runs/<run>/run.json`: written once, when the run was started."""

    config: dict[str, JsonValue]
    """The configuration, as the version that started it understood it."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of what is read beside the configuration, by the setting that names it; empty in runs of earlier
    versions."""
    data_digest: str = ""
    """Of earlier versions: of the prompt set's bytes, and of the flags where there is a list."""
    started_at: str = ""
    """UTC time, ISO 8601."""
    purpose: Purpose = "training"
    """What it was started for; runs of earlier versions do not tell."""


class Changed(Strict):
    """`runs/<run>/changes/<token>.json`: operations and placements that a holder of the run has changed."""

    at: str
    """UTC time, ISO 8601."""
    settings: dict[str, tuple[JsonValue, JsonValue]]
    """(before, after) by dotted key."""
    config: dict[str, JsonValue]
    """The configuration from then on."""


@with_config(extra="forbid")
class StageNote(TypedDict):
    """`runs/<run>/stages/<stage>[-<label>].json`: which record the run used for a stage."""

    stage: str
    label: str
    key: str
    cached: bool
    """Was it there already?"""
    noted_at: str


class Status(Strict):
    """`runs/<run>/status.json`: how the run goes, or ended."""

    status: str
    """running, completed, failed or stopped; unknown where nothing was written."""
    at: str = ""
    """UTC time, ISO 8601."""
    error: str = ""
    """What went wrong, in one line."""
    token: int = 0
    """Fencing token of the holder that wrote it."""


def run_names(store: Store) -> list[str]:
    """Runs of the store, in order; a file that lies beside their folders is none."""
    return sorted({key.split("/")[1] for key in store.list("runs") if key.count("/") > 1})


def find_run(store: Store, typed: str, further: Iterable[str] = ()) -> str:
    """The name that `typed` stands for: that name itself, or the only one of the store's runs that begins so.

    `further`: other names that are meant as well. Raises `ConfigError` where there is none, or where there are several.
    """
    names = sorted({*run_names(store), *further})
    begin = [name for name in names if typed and name.startswith(typed)]
    if typed in names or not begin:
        return typed if typed in names else _no_run(typed, names)
    if len(begin) > 1:
        raise ConfigError(f"{typed!r} is the beginning of {len(begin)} runs; say which: {', '.join(begin)}")
    return begin[0]


def _no_run(name: str, names: Sequence[str]) -> NoReturn:
    raise ConfigError(f"no run {name} in this store; runs there: {', '.join(names) or 'none'}")


def require_run(store: Store, name: str) -> None:
    """Raises `ConfigError` where there is no such run."""
    names = run_names(store)
    if name not in names:
        _no_run(name, names)


def read_started(store: Store, name: str) -> Started:
    """How the run was started. Raises `ConfigError` where there is no such run, and `CorruptArtifact` where that is
    damaged or gone."""
    data = store.get(started_place(name))
    remedy = "To write it again, start the run as it was started first: cures run --config PROFILE"
    if data is None:
        require_run(store, name)
        raise CorruptArtifact(f"{started_place(name)}: is gone. {remedy}")
    return decode_value(Started, data, started_place(name), remedy)


def started_place(name: str) -> str:
    return f"runs/{name}/run.json"


def status_place(name: str) -> str:
    return f"runs/{name}/status.json"


def note_change(store: Store, run: RunRef, change: Changed) -> None:
    """Remember that the run goes on with other settings. Raises `LeaseLost`."""
    place = f"runs/{run.name}/changes/{run.token:08d}.json"
    commit(store, run.name, run.token, place, encode_value(change), store.get(place))


def changes_of(store: Store, name: str) -> list[Changed]:
    """How the settings of a run were changed while it went on, oldest first. Raises `CorruptArtifact`."""
    found = [read_change(store, name, place) for place in sorted(store.list(f"runs/{name}/changes"))]
    return [change for change in found if change is not None]


def read_change(store: Store, name: str, place: str) -> Changed | None:
    """One change, None where there is none. Raises `CorruptArtifact`."""
    data = store.get(place)
    remedy = f"To go on with the settings before it: {aside_command(place)}, then cures run --resume {name}"
    return None if data is None else decode_value(Changed, data, place, remedy)


def note_stage(store: Store, run: RunRef, label: str, record: Record[Figures], *, cached: bool) -> None:
    """Remember which record this run used for a stage, and whether it was there already. Raises `LeaseLost`."""
    check_token(store, run.name, run.token)
    note: StageNote = {
        "stage": record.stage,
        "label": label,
        "key": record.key,
        "cached": cached,
        "noted_at": utc_now(),
    }
    store.put(_note_place(run.name, record.stage, label), encode_value(note))


def stage_notes(store: Store, name: str) -> list[StageNote]:
    """The notes of a run, oldest first."""
    notes = [read_note(store, name, key) for key in store.list(f"runs/{name}/stages")]
    found = [note for note in notes if note is not None]
    return sorted(found, key=lambda note: (note["noted_at"], note["stage"], note["label"]))


def stage_record(store: Store, name: str, kind: type[F], label: str = "") -> Record[F] | None:
    """The record a run used for a stage, named by its figures."""
    note = read_note(store, name, _note_place(name, kind.stage, label))
    return None if note is None else read_record(store, kind, note["key"])


def noted_epochs(store: Store, name: str, kind: type[Figures]) -> list[int]:
    """The epochs of which a run has used a record of this stage, in order."""
    return sorted(int(note["label"]) for note in stage_notes(store, name) if note["stage"] == kind.stage)


def noted_record(store: Store, note: StageNote) -> Record[Figures] | None:
    """The record that a note speaks of, of whatever stage; None where it is gone."""
    return read_any(store, note["stage"], note["key"])


def made_before(started: Started, record: Record[Figures]) -> bool:
    """Was a record committed before the run was started, so by another one? Records have whole seconds.

    A run that is resumed finds its own records: what a note says of the cache is true of the last start only.
    """
    if not record.created_at or not started.started_at:
        return False
    created, start = (dt.datetime.fromisoformat(text) for text in (record.created_at, started.started_at))
    return created < start.replace(microsecond=0)


def note_status(store: Store, name: str, token: int, status: str, error: str = "") -> None:
    """Write how the run goes, as its holder; of a run that another process has taken over nothing is written."""
    value = encode_value(Status(status=status, at=utc_now(), error=error, token=token))
    try:
        while not commit(store, name, token, status_place(name), value, store.get(status_place(name))):
            pass
    except LeaseLost:
        return


def run_status(store: Store, name: str) -> Status:
    """How the run goes, by its own last word."""
    data = store.get(status_place(name))
    remedy = f"To write it again: cures run --resume {name}"
    return Status(status="unknown") if data is None else decode_value(Status, data, status_place(name), remedy)


class Overview(Strict):
    """A run in short."""

    run: str
    """Run name."""
    status: str
    """As in `Status`; `died` and `damaged` too."""
    at: str
    """UTC time of its last word, ISO 8601."""
    error: str
    """What went wrong, in one line."""
    stages: int
    """How many were reached."""


def run_overview(store: Store, name: str) -> Overview:
    """How a run stands.

    A run whose process is known to have ended without a word has the status `died`; one whose last word cannot be read
    is `damaged`.
    """
    try:
        status = run_status(store, name)
        if status.status == "running" and (gone := holder_gone(store, name, _lease_ttl_s(store, name))) is not None:
            error = f"its process is gone ({gone}); go on with: cures run --resume {name}"
            status = status.model_copy(update={"status": "died", "error": error})
    except CorruptArtifact as damage:
        status = Status(status="damaged", error=str(damage))
    number = len(list(store.list(f"runs/{name}/stages")))
    return Overview(run=name, status=status.status, at=status.at, error=status.error, stages=number)


def _lease_ttl_s(store: Store, name: str) -> float:
    cfg = read_kept(StoreConfig, read_started(store, name).config.get("store", {}))
    return cfg.lease_ttl_s


def utc_now() -> str:
    """UTC time with microseconds, ISO 8601."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")


def _note_place(name: str, stage: str, label: str) -> str:
    return f"runs/{name}/stages/{stage}{f'-{label}' if label else ''}.json"


def read_note(store: Store, name: str, place: str) -> StageNote | None:
    """The note of run `name` at a key; None where there is none. Raises `CorruptArtifact`."""
    data = store.get(place)
    remedy = f"To write it again: cures run --resume {name}"
    return None if data is None else decode_value(StageNote, data, place, remedy)
