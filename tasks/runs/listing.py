"""The runs of a store in short, a row each: what `cures runs list` shows."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from cures_core.errors import CorruptArtifact
from tasks.runs.figures import EvaluateFigures, Figures
from tasks.runs.notes import (
    Overview,
    Purpose,
    StageNote,
    Started,
    made_before,
    noted_record,
    read_started,
    run_names,
    run_overview,
    stage_notes,
)
from tasks.runs.records import Record
from tasks.storage import Store
from tasks.storage.local import LocalStore

_READERS = 8  # of a store that answers slowly; reading files is work for the processor, which threads do not share


class Listed(Overview):
    """A run in a listing. What is not known, such as the score of a run that has none yet, is None or empty."""

    purpose: Purpose = "training"
    """What the run was started for."""
    suite: str | None = None
    """Suite of the score: the first that the gate asks a gain of, else the first one."""
    score: float | None = None
    """avg@k of the last checkpoint that was scored, 0..1."""
    gain: float | None = None
    """That score minus the base policy's, on the same items."""
    started: str = ""
    """UTC time of the first start, ISO 8601."""
    seconds: float = 0.0
    """Wall time of the work in the run's own stages, however often it was resumed."""
    cached: int = 0
    """How many of its stages were committed before the run was started, by other runs."""


def list_runs(store: Store) -> list[Listed]:
    """All runs of a store, by name. One that is damaged has that as its status, and what could be read of it."""
    with ThreadPoolExecutor(1 if isinstance(store, LocalStore) else _READERS) as pool:
        return list(pool.map(lambda name: _listed(store, name), run_names(store)))


def _listed(store: Store, name: str) -> Listed:
    row = Listed.model_validate(run_overview(store, name).model_dump())
    try:
        started = read_started(store, name)
        row = row.model_copy(update={"purpose": started.purpose, "started": started.started_at})
        noted = [(note, noted_record(store, note)) for note in stage_notes(store, name)]
        return row.model_copy(update={**_work(started, noted), **_score(started, noted)})
    except CorruptArtifact as damage:
        return row.model_copy(update={"status": "damaged", "error": row.error or str(damage)})


_Noted = Sequence[tuple[StageNote, Record[Figures] | None]]


def _work(started: Started, noted: _Noted) -> dict[str, object]:
    """A resumed run finds its own records, so what a note says of the cache is true of the last start only."""
    records = [record for _, record in noted if record is not None]
    own = [record.seconds for record in records if not made_before(started, record)]
    return {"seconds": sum(own), "cached": len(records) - len(own)}


def _score(started: Started, noted: _Noted) -> dict[str, object]:
    by_epoch = {
        int(note["label"]): record.figures.scores
        for note, record in noted
        if record is not None and isinstance(record.figures, EvaluateFigures)
    }
    if not by_epoch or not (last := by_epoch[max(by_epoch)]):
        return {}
    suite = next((name for name in _suites_to_gain(started) if name in last), next(iter(last)))
    base = by_epoch[0].get(suite) if 0 in by_epoch and len(by_epoch) > 1 else None
    gain = None if base is None else last[suite].value - base.value
    return {"suite": suite, "score": last[suite].value, "gain": gain}


def _suites_to_gain(started: Started) -> Sequence[object]:
    """`promotion.suites`, read as it was written: no configuration of another version is refused for a listing."""
    promotion = started.config.get("promotion")
    suites = promotion.get("suites") if isinstance(promotion, dict) else None
    return suites if isinstance(suites, list) else []
