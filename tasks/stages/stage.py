"""The life of a stage: key, committed record or work, files, record last. Nothing else in the project commits.

A killed, repeated or concurrent stage finds the old state or the new one: the scratch folder survives a crash, files
are published before the record that names them, and the record is put only if absent and only with a valid lease.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from cures_core.errors import CorruptArtifact, StoreUnavailable
from cures_core.failures import Scene, explaining, failure_of
from cures_core.faults import fault_point
from cures_core.files import canonical_json, digest_json
from cures_core.jobs.assemble import versions
from cures_core.jobs.scene import GO_ON
from tasks.progress import emit
from tasks.runs.opening import note_stage, scratch_root
from tasks.runs.records import Record, RunRef
from tasks.storage import Store, open_store
from tasks.storage.fencing import check_token, commit

_log = logging.getLogger(__name__)


RETRIES, RETRY_DELAYS_S = 2, [2.0, 15.0]
"""How often, and after how many seconds, Prefect starts again what ended with a retryable error."""


@dataclass(frozen=True)
class Workspace:
    """Where a stage works: `scratch` survives a crash, `out` is what gets published, and below the prefix `unfinished`
    of the store may lie what another machine should find if this one is lost."""

    scratch: Path
    out: Path
    store: Store
    unfinished: str


P = ParamSpec("P")
R = TypeVar("R")
Work = Callable[[Workspace], Mapping[str, Any]]
StillThere = Callable[[Record], bool]


def retryable(_task: Any, _task_run: Any, state: Any) -> bool:
    """Prefect's retry condition: what `cures_core.failures` says of the error."""
    try:
        state.result()
    except Exception as error:
        return failure_of(error).retryable
    return False


def as_stage(run_name: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a stage: a Prefect task of its name, retried where the error says so; a call returns its record.

    `run_name` names the task run in the UI, as in "train_epoch {k}". The record in the store decides what is done
    already, not Prefect: so no Prefect cache and no persisted results.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        make: Any = task
        prefect_task = make(
            explaining(Scene(function.__name__, go_on=GO_ON))(function),
            name=function.__name__,
            task_run_name=run_name or function.__name__,
            retries=RETRIES,
            retry_delay_seconds=RETRY_DELAYS_S,
            retry_condition_fn=retryable,
            cache_policy=NO_CACHE,
            persist_result=False,
        )

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            done: Any = prefect_task(*args, **kwargs)
            return cast(R, done.result() if isinstance(done, State) else done)

        return call

    return decorate


def run_stage(
    run: RunRef,
    stage: str,
    schema: int,
    inputs: Mapping[str, Any],
    parents: Sequence[Record],
    work: Work,
    *,
    label: str = "",
    still_there: StillThere | None = None,
) -> Record:
    """Return the committed record for these inputs, doing the work only if there is none.

    `schema` is the version of the stage's output: raise it when the meaning of its files changes. `label` tells apart
    the run's stages of one kind ("3" for epoch 3). `still_there` checks what a record points to outside the store. A
    committed record comes back as a Prefect state named `Cached`.
    """
    store = open_store(run.config.store)
    key = digest_json({"stage": stage, "schema": schema, "inputs": inputs})[:32]
    name = f"{stage} {label}".strip()
    emit({"event": "stage", "stage": name, "status": "start"})
    record = committed(store, stage, key)
    if record is not None and (still_there is None or still_there(record)):
        note_stage(store, run, label, record, cached=True)
        emit({"event": "stage", "stage": name, "status": "cached", "figures": record.figures})
        return cast(Record, _cached_state(record))
    started = time.monotonic()
    fault_point("stage.start", name.replace(" ", "-"))
    place = scratch_root(run) / stage / key
    space = Workspace(place / "scratch", place / "out", store, f"unfinished/{stage}/{key}")
    shutil.rmtree(space.out, ignore_errors=True)
    space.out.mkdir(parents=True)
    space.scratch.mkdir(parents=True, exist_ok=True)
    figures = dict(work(space))
    made = Record(
        stage=stage,
        key=key,
        inputs=json.loads(canonical_json(inputs)),
        parents=tuple(p.id for p in parents),
        figures=figures,
        versions=versions(),
        seconds=round(time.monotonic() - started, 3),
        created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    record = record or _commit(store, run, made, space, name.replace(" ", "-"))
    store.delete(space.unfinished)
    shutil.rmtree(place, ignore_errors=True)
    note_stage(store, run, label, record, cached=False)
    emit({"event": "stage", "stage": name, "status": "done", "seconds": record.seconds, "figures": figures})
    return record


def committed(store: Store, stage: str, key: str) -> Record | None:
    """The record of this key if its files are there; a record whose files are gone is withdrawn, with a warning."""
    data = store.get(_place(stage, key))
    if data is None:
        return None
    record = Record.model_validate_json(data)
    if record.files is None:
        return record
    try:
        store.verify_files(record.files, record.manifest, deep=False)
    except CorruptArtifact as error:
        _log.warning("%s: %s; doing the stage again", record.id, error)
        _withdraw(store, record)
        return None
    return record


def files_of(store: Store, record: Record) -> Path:
    """A local folder with a stage's files, every byte checked before another stage builds on them.

    Raises `CorruptArtifact`, after withdrawing the record, so that running again makes the files again.
    """
    if record.files is None:
        raise CorruptArtifact(f"{record.id}: has no files")
    try:
        store.verify_files(record.files, record.manifest)
        return store.local_path(record.files)
    except CorruptArtifact as error:
        _withdraw(store, record)
        raise CorruptArtifact(
            f"{record.id}: {error}. The record was withdrawn: resume to do that stage again"
        ) from error


def _withdraw(store: Store, record: Record) -> None:
    store.delete(_place(record.stage, record.key))
    if record.files is not None:
        store.delete(record.files)


def _commit(store: Store, run: RunRef, record: Record, space: Workspace, name: str) -> Record:
    fault_point("stage.before_files", name)
    if any(space.out.iterdir()):
        check_token(store, run.name, run.token)
        # One writer a prefix: a holder that was paused past its lease cannot touch its successor's files.
        prefix = f"artifacts/{record.stage}/{record.key}/{run.name}-{run.token}"
        manifest = store.publish_files(prefix, space.out)
        record = record.model_copy(update={"files": prefix, "manifest": manifest})
    fault_point("stage.before_record", name)
    data = canonical_json(record.model_dump(mode="json"))
    if not commit(store, run.name, run.token, _place(record.stage, record.key), data):
        theirs = committed(store, record.stage, record.key)  # another run did the same work first: theirs counts
        if theirs is None:
            raise StoreUnavailable(f"{record.id}: was there and is gone; resume to do it again")
        if record.files is not None:
            store.delete(record.files)
        record = theirs
    fault_point("stage.after_record", name)
    return record


def _place(stage: str, key: str) -> str:
    return f"stages/{stage}/{key}.json"


def _cached_state(record: Record) -> Any:
    """In a Prefect task: a final state named `Cached`, as its UI shows results that were not computed again."""
    from prefect.context import TaskRunContext
    from prefect.states import Completed

    if TaskRunContext.get() is None:
        return record
    return Completed(name="Cached", data=record, message=f"committed before: {record.id}")
