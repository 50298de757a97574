"""The life of a stage: key, committed record or work, files, record last. Nothing else in the project commits.

A killed, repeated or concurrent stage finds the old state or the new one: the scratch folder survives a crash, files are
published before the record that names them, and the record is put only if absent and only with a valid lease.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cures_core.errors import CorruptArtifact, CuresError
from cures_core.faults import fault_point
from cures_core.files import canonical_json, digest_json
from cures_core.jobs.assemble import versions
from tasks.progress import emit
from tasks.records import Record, RunRef
from tasks.runs import check_lease, note_stage, scratch_root
from tasks.storage import Store, open_store

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workspace:
    """Where a stage works: `scratch` survives a crash, `out` is what gets published."""

    scratch: Path
    out: Path
    store: Store


Work = Callable[[Workspace], Mapping[str, Any]]


def retryable(_task: Any, _task_run: Any, state: Any) -> bool:
    """Prefect's retry condition: the error's class decides."""
    try:
        state.result()
    except CuresError as error:
        return error.retryable
    except Exception:  # whatever else went wrong is not known to pass
        return False
    return False


RETRY: dict[str, Any] = {"retries": 2, "retry_delay_seconds": [2, 15], "retry_condition_fn": retryable}


def run_stage(
    run: RunRef,
    stage: str,
    schema: int,
    inputs: Mapping[str, Any],
    parents: Sequence[Record],
    work: Work,
    label: str = "",
) -> Any:
    """Return the committed record for these inputs, doing the work only if there is none.

    `schema` is the version of the stage's output: raise it when the meaning of its files changes. `label` tells apart
    the run's stages of one kind ("3" for epoch 3). A committed record comes back as a Prefect state named `Cached`.
    """
    store = open_store(run.config.store)
    key = digest_json({"stage": stage, "schema": schema, "inputs": inputs})[:32]
    name = f"{stage} {label}".strip()
    emit({"event": "stage", "stage": name, "status": "start"})
    if (record := committed(store, stage, key)) is not None:
        note_stage(store, run, label, record, cached=True)
        emit({"event": "stage", "stage": name, "status": "cached", "figures": record.figures})
        return _cached_state(record)
    started = time.monotonic()
    fault_point("stage.start", name.replace(" ", "-"))
    place = scratch_root(run) / stage / key
    space = Workspace(place / "scratch", place / "out", store)
    shutil.rmtree(space.out, ignore_errors=True)
    space.out.mkdir(parents=True)
    space.scratch.mkdir(parents=True, exist_ok=True)
    figures = dict(work(space))
    record = Record(
        stage=stage,
        key=key,
        inputs=json.loads(canonical_json(inputs)),
        parents=tuple(p.id for p in parents),
        figures=figures,
        versions=versions(),
        seconds=round(time.monotonic() - started, 3),
        created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    record = _commit(store, run, record, space, name.replace(" ", "-"))
    shutil.rmtree(place, ignore_errors=True)
    note_stage(store, run, label, record, cached=False)
    emit({"event": "stage", "stage": name, "status": "done", "seconds": record.seconds, "figures": figures})
    return record


def committed(store: Store, stage: str, key: str) -> Record | None:
    """The record of this key if all it points to is there; a record whose files are gone is withdrawn, with a warning."""
    place = f"stages/{stage}/{key}.json"
    data = store.get(place)
    if data is None:
        return None
    record = Record.model_validate_json(data)
    if record.files is not None:
        try:
            store.verify_files(record.files)
        except CorruptArtifact as error:
            _log.warning("%s: %s; doing the stage again", place, error)
            store.delete(place)
            store.delete(record.files)
            return None
    return record


def _commit(store: Store, run: RunRef, record: Record, space: Workspace, name: str) -> Record:
    fault_point("stage.before_files", name)
    if any(space.out.iterdir()):
        prefix = f"artifacts/{record.stage}/{record.key}"
        manifest = store.publish_files(prefix, space.out)
        record = record.model_copy(update={"files": prefix, "manifest": manifest})
    fault_point("stage.before_record", name)
    check_lease(store, run)
    place = f"stages/{record.stage}/{record.key}.json"
    if not store.put_if_absent(place, canonical_json(record.model_dump(mode="json"))):
        data = store.get(place)
        if data is None:
            raise CorruptArtifact(f"{place}: was there and is gone; retry")
        record = Record.model_validate_json(data)  # somebody did the same work first: theirs counts
    fault_point("stage.after_record", name)
    return record


def _cached_state(record: Record) -> Any:
    """In a Prefect task: a final state named `Cached`, as its UI shows results that were not computed again."""
    from prefect.context import TaskRunContext
    from prefect.states import Completed

    if TaskRunContext.get() is None:
        return record
    return Completed(name="Cached", data=record, message=f"committed before: {record.id}")
