"""The life of a stage: key, committed record or work, files, record last. Nothing else in the project commits.

A killed, repeated or concurrent stage finds the old state or the new one: the scratch folder survives a crash, files
are published before the record that names them, and the record is put only if absent and only with a valid lease.
A stage in progress is held by its key: another run that needs it waits, and takes its record.
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime as dt
import functools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, ParamSpec, TypeVar, cast

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from pydantic import JsonValue, TypeAdapter

from cures_core.errors import CorruptArtifact, LeaseHeld, LeaseLost, StoreUnavailable, TryAgain
from cures_core.failures import Scene, explaining, failure_of
from cures_core.faults import fault_point
from cures_core.files import canonical_json, digest_json
from cures_core.jobs.assemble import versions
from cures_core.jobs.scene import GO_ON
from cures_core.machine import built_from, processor
from tasks.progress import StageEnded, StageStarted, StageWaiting, emit
from tasks.runs.figures import Figures
from tasks.runs.notes import note_stage
from tasks.runs.opening import scratch_root
from tasks.runs.orphans import drop_unnamed
from tasks.runs.records import F, Record, RunRef, committed, record_bytes, record_place
from tasks.stages.job_process import allow_jobs, stop_jobs
from tasks.stages.workspace import Workspace, clear, take_over, unfinished_prefix
from tasks.storage import Store, open_store
from tasks.storage.fencing import check_token, commit, stage_lease
from tasks.storage.lease import Lease, is_free
from tasks.storage.s3_client import hurry
from tasks.storage.values import set_aside

_log = logging.getLogger(__name__)
_POLL_S = 0.5

RETRIES, RETRY_DELAYS_S = 2, [2.0, 15.0]
"""How often, and after how many seconds, Prefect starts again what ended with a retryable error."""


P = ParamSpec("P")
R = TypeVar("R")


_looking: contextvars.ContextVar[bool] = contextvars.ContextVar("looking", default=False)


class NotCommitted(Exception):
    """A stage would have to be done."""


@contextmanager
def only_looking() -> Iterator[None]:
    """In the block stages hand out what is committed, outside Prefect, and write nothing, not even notes.

    Raises `NotCommitted` at the first one that is not, or is damaged.
    """
    token = _looking.set(True)
    try:
        yield
    finally:
        _looking.reset(token)


@dataclass(frozen=True)
class Made(Generic[F]):
    """What a stage's work gives back: figures, and what they were made on, where it was not this process alone."""

    figures: F
    machine: Mapping[str, str] = field(default_factory=dict)
    """Policy device, threads or gpu, dtype."""


Work = Callable[[Workspace], Made[F]]
StillThere = Callable[[Record[F]], bool]


def read_made(kind: type[F], out: Path, **figures: JsonValue) -> Made[F]:
    """What a job has left in `figures.json`, together with figures of the files that it has made."""
    said: dict[str, JsonValue] = json.loads((out / "figures.json").read_bytes())
    machine = TypeAdapter(dict[str, str]).validate_python(said.pop("machine", {}))
    return Made(kind.model_validate({**figures, **said}), machine)


def retryable(_task: object, _task_run: object, state: State[object]) -> bool:
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
        explained = explaining(Scene(function.__name__, go_on=GO_ON))(function)
        prefect_task = task(
            name=function.__name__,
            task_run_name=run_name or function.__name__,
            retries=RETRIES,
            retry_delay_seconds=RETRY_DELAYS_S,
            retry_condition_fn=retryable,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(explained)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if _looking.get():
                return function(*args, **kwargs)
            done: R | State[R] = prefect_task(*args, **kwargs)
            return done.result() if isinstance(done, State) else done

        return call

    return decorate


def run_stage(
    run: RunRef,
    kind: type[F],
    schema: int,
    inputs: Mapping[str, object],
    parents: Sequence[Record[Figures]],
    work: Work[F],
    *,
    label: str = "",
    still_there: StillThere[F] | None = None,
) -> Record[F]:
    """Return the committed record for these inputs, doing the work only if there is none. The stage is that of the
    figures `kind`.

    `schema` is the version of the stage's output: raise it when the meaning of its files changes. `label` tells apart
    the run's stages of one kind ("3" for epoch 3). `still_there` checks what a record points to outside the store. A
    committed record comes back as a Prefect state named `Cached`.

    While another run does the same stage this one waits for its record. A damaged record is set aside, and the stage
    done again.
    """
    store = open_store(run.config.store)
    stage = kind.stage
    key, inputs = stage_key(run, kind, label, schema, inputs)
    name = f"{stage} {label}".strip()
    if _looking.get():
        return _committed_only(store, kind, _taken_over(run, stage, label) or key, still_there)
    emit(StageStarted(name))
    if taken := _taken_over(run, stage, label):
        key = taken
        _require_taken_over(store, run, kind, key)
    lease, found = _claim(store, kind, key, run.config.store.lease_ttl_s, name, still_there)
    if lease is None:
        record = found.intact
        note_stage(store, run, label, record, cached=True)
        emit(StageEnded(name, record, cached=True))
        return cast(Record[F], _cached_state(record))
    with _working(store, run, lease):
        started = time.monotonic()
        fault_point("stage.start", name.replace(" ", "-"))
        if found.raw is not None and found.record is None:
            kept = set_aside(store, record_place(stage, key), found.raw)
            _log.warning("%s Doing the stage again; the record is kept as %s, its files as they are", found.fault, kept)
        place = take_over(scratch_root(run), stage, key, lease.token, run.name)
        space = Workspace(place / "scratch", place / "out", store, unfinished_prefix(stage, key))
        made = work(space)
        new = Record(
            stage=stage,
            key=key,
            inputs=json.loads(canonical_json(inputs)),
            parents=tuple(p.id for p in parents),
            figures=made.figures,
            versions={**versions(run.config), **built_from()},
            machine={"processor": processor(), **made.machine},
            seconds=round(time.monotonic() - started, 3),
            created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        )
        record = found.record or _commit(store, run, lease, new, space, found.raw, name.replace(" ", "-"))
        store.delete(space.unfinished)
        clear(scratch_root(run), stage, key)
    note_stage(store, run, label, record, cached=False)
    emit(StageEnded(name, record, cached=False))
    return record


def stage_key(
    run: RunRef, kind: type[Figures], label: str, schema: int, inputs: Mapping[str, object]
) -> tuple[str, Mapping[str, object]]:
    """The key of a stage's record, a digest of everything that it reads, and what it is made of."""
    if again := run.times(kind.stage, label):  # nothing that was made before is in the way, nor lost
        inputs = {**inputs, "again": [run.name, again]}
    return digest_json({"stage": kind.stage, "schema": schema, "inputs": inputs})[:32], inputs


def _taken_over(run: RunRef, stage: str, label: str) -> str:
    """Key of the record that a fork has for a stage from the run it goes on from; empty where it has none, or a person
    wants the stage done again."""
    fork = run.config.fork
    return "" if fork is None or run.times(stage, label) else fork.records.get(f"{stage} {label}".strip(), "")


def _require_taken_over(store: Store, run: RunRef, kind: type[Figures], key: str) -> None:
    """Raises `CorruptArtifact`: a fork cannot make what it took over, for it has other settings."""
    assert run.config.fork is not None
    parent = run.config.fork.run
    remedy = f"Taken over from run {parent}. To make it again: cures run --resume {parent}; then resume this run"
    try:
        if committed(store, kind, key) is not None:
            return
    except CorruptArtifact as error:
        raise CorruptArtifact(f"{error}. {remedy}") from error
    raise CorruptArtifact(f"{record_place(kind.stage, key)}: is gone. {remedy}")


@dataclass(frozen=True)
class _Found(Generic[F]):
    """What lies at a stage's key: bytes, the record if it and its files are whole, whether it will do, else why not."""

    raw: bytes | None = None
    record: Record[F] | None = None
    usable: bool = False
    fault: str = ""

    @property
    def intact(self) -> Record[F]:
        assert self.record is not None
        return self.record


def _look(store: Store, kind: type[F], key: str, still_there: StillThere[F] | None) -> _Found[F]:
    raw = store.get(record_place(kind.stage, key))
    if raw is None:
        return _Found()
    try:
        record = committed(store, kind, key)
    except CorruptArtifact as error:
        return _Found(raw, fault=str(error))
    return _Found(raw, record, record is not None and (still_there is None or still_there(record)))


def _committed_only(store: Store, kind: type[F], key: str, still_there: StillThere[F] | None) -> Record[F]:
    found = _look(store, kind, key, still_there)
    if not found.usable:
        raise NotCommitted(f"{kind.stage}/{key}")
    return found.intact


def _claim(
    store: Store, kind: type[F], key: str, ttl_s: float, name: str, still_there: StillThere[F] | None
) -> tuple[Lease | None, _Found[F]]:
    """The lease of a stage that is to be done, and what lies at its key; no lease where the record will do.

    Waits, however long, while another process holds the stage and lives.
    """
    place, lease_name, holder = record_place(kind.stage, key), stage_lease(kind.stage, key), ""
    while True:
        found = _look(store, kind, key, still_there)
        if found.usable:
            return None, found
        try:
            lease = Lease(store, lease_name, ttl_s, stop_jobs)
        except LeaseHeld as held:
            if str(held) != holder:
                holder = str(held)
                emit(StageWaiting(name, holder=holder.partition(", which")[0]))
            _wait_for_news(store, lease_name, place, found.raw, ttl_s)
            continue
        if store.get(place) == found.raw:
            return lease, found
        lease.close()  # whoever held it has committed meanwhile


def _wait_for_news(store: Store, lease_name: str, place: str, raw: bytes | None, ttl_s: float) -> None:
    """Until the record changes, the holder ends, or it is time to see whether a holder elsewhere still lives."""
    until = time.monotonic() + ttl_s
    while time.monotonic() < until and store.get(place) == raw and not is_free(store, lease_name, ttl_s):
        time.sleep(_POLL_S)


@contextmanager
def _working(store: Store, run: RunRef, lease: Lease) -> Iterator[None]:
    """Hold the stage during the block. What goes wrong in a process that has lost a lease went wrong because of that:
    its successor has its folder, and its jobs were stopped.

    Raises `LeaseLost` where the run was lost, and `TryAgain`, which is retried, where another run has only the stage.
    """
    try:
        yield
    except Exception as error:
        with contextlib.suppress(StoreUnavailable, CorruptArtifact):
            check_token(store, run.name, run.token)
            try:
                lease.check()
            except LeaseLost as lost:
                raise TryAgain(f"{lost}; run {run.name} goes on by taking that one's result") from error
        raise
    except BaseException as stop:
        hurry(stop)
        raise
    finally:
        lease.close()
        allow_jobs()


def _commit(
    store: Store, run: RunRef, lease: Lease, record: Record[F], space: Workspace, damaged: bytes | None, name: str
) -> Record[F]:
    """Publish the files, then put the record in place of none, or of the damaged one."""
    fault_point("stage.before_files", name)
    if any(space.out.iterdir()):
        check_token(store, run.name, run.token)
        lease.check()
        # One writer a prefix: a holder that was paused past its lease cannot touch its successor's files, and what a
        # damaged record points to stays where it is.
        prefix = f"artifacts/{record.id}/{run.name}-{run.token}.{lease.token}"
        manifest = store.publish_files(prefix, space.out)
        record = record.model_copy(update={"files": prefix, "manifest": manifest})
    fault_point("stage.before_record", name)
    try:
        lease.check()
        place = record_place(record.stage, record.key)
        is_ours = commit(store, run.name, run.token, place, record_bytes(record), damaged)
    except LeaseLost:
        if record.files is not None:  # nobody would: the successor may have ended before they were there
            drop_unnamed(store, run.name, record.stage, record.key, record.files)
        raise
    if not is_ours:
        # Another run did the same work first: theirs counts.
        theirs = committed(store, type(record.figures), record.key)
        if theirs is None:
            raise StoreUnavailable(f"{record.id}: was there and is gone; resume to do it again")
        if record.files is not None:
            store.delete(record.files)
        record = theirs
    fault_point("stage.after_record", name)
    _remove_orphans(store, record)
    return record


def _remove_orphans(store: Store, record: Record[Figures]) -> None:
    """Remove files that holders of this stage published and did not live to commit. What a damaged record may point to
    stays."""
    if any(key.startswith(f"damaged/stages/{record.id}.") for key in store.list(f"damaged/stages/{record.stage}")):
        return
    place = f"artifacts/{record.id}/"
    writers = {key.removeprefix(place).partition("/")[0] for key in store.list(place.rstrip("/"))}
    for writer in writers:
        if f"{place}{writer}" != record.files:
            store.delete(f"{place}{writer}")


def _cached_state(record: Record[F]) -> Record[F] | State[Record[F]]:
    """In a Prefect task: a final state named `Cached`, as its UI shows results that were not computed again."""
    from prefect.context import TaskRunContext
    from prefect.states import Completed

    if TaskRunContext.get() is None:
        return record
    return Completed(name="Cached", data=record, message=f"committed before: {record.id}")
