"""Values that nothing writes again where they are damaged: a person has them set aside, and who reads them goes on.

They are kept as `damaged/<place>-<n>`, never deleted, by the holder of the lease that they belong to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial

from cures_core.checkpoints.in_epoch import SPOILT
from cures_core.errors import ConfigError, CorruptArtifact, TryAgain
from tasks.ci.retraining import DECISIONS, read_decision
from tasks.runs.again import times_again
from tasks.runs.figures import Figures
from tasks.runs.notes import read_change
from tasks.runs.opening import FLOW_RUNS, read_inputs
from tasks.runs.records import Record, read_any, verify_record
from tasks.snapshots.published import PARTS, published_about, published_file
from tasks.stages.evaluation_cache import read_rows
from tasks.stages.unfinished import read_spoilt
from tasks.storage import Store
from tasks.storage.fencing import parse, renew, stage_lease
from tasks.storage.lease import Lease
from tasks.storage.values import set_aside

_TTL_S = 60.0
PLACES = (
    "runs/RUN/again.json, runs/RUN/changes/..., stages/..., evaluations/..., leases/..., flow-runs/..., "
    "retrainings/..., unfinished/.../spoilt.json, forks/DIGEST, published/NAME/NUMBER"
)


def set_place_aside(store: Store, place: str) -> list[str]:
    """Set aside what is damaged at `place`; returns the names under which it is kept.

    Raises `ConfigError` where nothing is there, it is as it was written, or something else writes it again, and
    `LeaseHeld` where somebody works with it.
    """
    read = reader_of(store, place)
    if read is None:
        raise ConfigError(f"{place}: only these are set aside by hand: {PLACES}. Others are made again by their runs")
    with contextlib.ExitStack() as held:
        if (lease := _lease_of(place)) is not None:
            held.enter_context(contextlib.closing(Lease(store, lease, _TTL_S)))
        keys = _keys(store, place)
        if not keys:
            raise ConfigError(
                f"{place}: there is nothing in this store; `cures runs verify --all` names what is damaged"
            )
        try:
            read()
        except CorruptArtifact:
            return [_moved(store, key) for key in keys]
    raise ConfigError(f"{place}: is as it was written; only what is damaged is set aside")


def reader_of(store: Store, place: str) -> Callable[[], object] | None:
    """What reads the value at a place, and raises `CorruptArtifact`; None for a place that is not set aside by hand."""
    match place.split("/"):
        case ["runs", run, "again.json"]:
            return partial(times_again, store, run)
        case ["runs", run, "changes", _]:
            return partial(read_change, store, run, place)
        case ["stages", stage, file] if file.endswith(".json"):
            return partial(_record, store, stage, file.removesuffix(".json"))
        case ["evaluations", _, *_]:
            return partial(read_rows, store, place)
        case ["leases", _, *_] if place.endswith(".json"):
            return partial(parse, store, _leased(place))
        case [first, _, "inputs.json"] if first == FLOW_RUNS:
            return partial(read_inputs, store, place)
        case [first, _] if first == DECISIONS:
            return partial(read_decision, store, place)
        case ["unfinished", _, _, file] if file == SPOILT:
            return partial(read_spoilt, store, place)
        case ["forks", digest]:
            return partial(store.verify_files, place, digest)
        case ["published", name, number] if number.isdecimal():
            return partial(_published, store, name, int(number))
    return None


def _lease_of(place: str) -> str | None:
    """The lease whose holder writes there; None where nobody needs one."""
    match place.split("/"):
        case ["runs", run, *_]:
            return run
        case ["stages", stage, file]:
            return stage_lease(stage, file.removesuffix(".json"))
        case ["unfinished", stage, key, _]:
            return stage_lease(stage, key)
    return None


def _keys(store: Store, place: str) -> list[str]:
    """The value at a place, or those below it."""
    return [place] if store.get(place) is not None else list(store.list(place))


def _moved(store: Store, key: str) -> str:
    data = store.get(key)
    if data is not None and key.startswith("leases/"):
        kept = renew(store, _leased(key), data)
    elif data is not None:
        kept = set_aside(store, key, data)
        store.delete(key)
    else:
        kept = None
    if kept is None:
        raise TryAgain(f"{key}: was changed by another process just now; look at it, then try again")
    return kept


def _leased(place: str) -> str:
    return place.removeprefix("leases/").removesuffix(".json")


def _record(store: Store, stage: str, key: str) -> Record[Figures] | None:
    record = read_any(store, stage, key)
    if record is not None and record.files is not None:
        verify_record(store, record)
    return record


def _published(store: Store, name: str, number: int) -> None:
    published_about(store, name, number)
    for part in PARTS:
        published_file(store, name, number, part)
