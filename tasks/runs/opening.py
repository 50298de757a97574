"""Runs: what makes two the same one, and how one is held while its stages run."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cures_core.config.fork import Fork
from cures_core.config.marks import changes, results
from cures_core.config.retired import readable, reasons
from cures_core.config.run import RunConfig
from cures_core.config.snapshot import SnapshotConfig
from cures_core.config.storage import StoreConfig
from cures_core.config.urls import read_kept
from cures_core.errors import ConfigError, CorruptArtifact, StoreUnavailable, UnexpectedError
from cures_core.failures import failure_of
from cures_core.faults import arm
from cures_core.files import digest_json
from cures_core.secrets import masked
from tasks.inputs.digests import Input, inputs_of
from tasks.inputs.prompt_files import is_elsewhere
from tasks.progress import RunOpened, emit
from tasks.runs.again import times_again
from tasks.runs.notes import (
    Changed,
    Purpose,
    Started,
    changes_of,
    note_change,
    note_status,
    read_started,
    run_status,
    stage_notes,
    started_place,
    utc_now,
)
from tasks.runs.orphans import sweep_orphans
from tasks.runs.records import RunRef
from tasks.snapshots.published import published_places
from tasks.stages.job_process import allow_jobs, stop_jobs
from tasks.stages.workspace import sweep
from tasks.storage import Store, open_store
from tasks.storage.fencing import commit
from tasks.storage.lease import Lease, is_free
from tasks.storage.s3_client import hurry
from tasks.storage.values import aside_command, decode_value, encode_value, set_aside

_log = logging.getLogger(__name__)

FLOW_RUNS = "flow-runs"
"""Where the store keeps what flow runs have read first."""

_KNOWN = ("store.url",)
"""Settings that are known to whoever reads a note: where it is."""


@contextmanager
def open_run(config: RunConfig, purpose: Purpose = "training") -> Iterator[RunRef]:
    """Hold the run's lease while the block runs, and note how it ended. `purpose`: noted where the run is new.

    Raises `LeaseHeld` (exit code 75) if another process works on the same run.
    """
    store = open_store(config.store)
    name, inputs = identify(config)
    lease = Lease(store, name, config.store.lease_ttl_s, stop_jobs)
    arm(config.faults, Path(config.store.folder).absolute() / "faults" / name)
    ref = RunRef(name=name, config=config, token=lease.token, inputs=_digests(inputs))
    try:
        _note_start(store, ref, purpose)
        note_status(store, name, ref.token, "running")
        _sweep(store, ref)
        ref = ref.model_copy(update={"again": dict(times_again(store, name))})
        emit(RunOpened(name))
        yield ref
        _sweep(store, ref, ended=True)
        note_status(store, name, ref.token, "completed")
    except BaseException as error:
        hurry(error)
        try:
            note_status(store, name, ref.token, "failed" if isinstance(error, Exception) else "stopped", _reason(error))
        except StoreUnavailable as away:  # why it ends is what counts
            _log.warning("how the run ended is not noted: %s", away)
        raise
    finally:
        lease.close()
        allow_jobs()
        hurry(None)


def _reason(error: BaseException) -> str:
    """Why a run ended, in the line that lists show. Of what nobody foresaw only the kind: its words may be anything."""
    if not isinstance(error, Exception):
        number = getattr(error, "signal", None)  # of Prefect's TerminationSignal
        how = "" if number is None else f" ({signal.Signals(number).name})"
        return "interrupted" if isinstance(error, KeyboardInterrupt) else f"stopped{how}"
    failure = failure_of(error)
    if failure is not error and isinstance(failure, UnexpectedError):
        return type(error).__name__
    return masked(str(failure).partition("\n")[0]) or type(error).__name__


def completed_run(config: RunConfig) -> RunRef | None:
    """The run that this configuration names, to look at, where it was completed with the same settings and nobody
    holds it; None else, also where what it says of itself is damaged.
    """
    store = open_store(config.store)
    name, inputs = identify(config)
    try:
        if run_status(store, name).status != "completed" or not is_free(store, name, config.store.lease_ttl_s):
            return None
        if any(change.path not in _KNOWN for change in changes(started_config(store, name), config)):
            return None
        again = dict(times_again(store, name))
    except CorruptArtifact:
        return None
    return RunRef(name=name, config=config, token=0, inputs=_digests(inputs), again=again)


def _note_start(store: Store, run: RunRef, purpose: Purpose) -> None:
    """Write how the run was started, once, and afterwards what has changed; a damaged note of the start is set aside
    and written again. Raises `CorruptArtifact` for a damaged change, which only a person can set aside."""
    place = started_place(run.name)
    raw = store.get(place)
    if raw is not None:
        try:
            read_started(store, run.name)
        except CorruptArtifact as error:
            _log.warning("%s Set aside as %s", error, set_aside(store, place, raw))
        else:
            _note_change(store, run)
            return
    config = run.config.model_dump(mode="json")
    first = Started(config=config, inputs=run.inputs, started_at=utc_now(), purpose=purpose)
    commit(store, run.name, run.token, place, encode_value(first), raw)


def _note_change(store: Store, run: RunRef) -> None:
    """Remember operations and placements that are not those the run had before; results make another run."""
    found = [c for c in changes(started_config(store, run.name), run.config) if c.path not in _KNOWN]
    if found:
        settings = {change.path: (change.before, change.after) for change in found}
        note_change(store, run, Changed(at=utc_now(), settings=settings, config=run.config.model_dump(mode="json")))


def _sweep(store: Store, run: RunRef, *, ended: bool = False) -> None:
    """Remove what killed stages have left, as far as nobody will go on with it. Best effort."""
    try:
        sweep(store, scratch_root(run), run.config.store.lease_ttl_s, run.name if ended else None)
        if ended:
            sweep_orphans(store, {f"{note['stage']}/{note['key']}" for note in stage_notes(store, run.name)})
    except (StoreUnavailable, CorruptArtifact) as error:
        _log.warning("leftovers of killed stages stay for now: %s", error)


class Identity(NamedTuple):
    """What makes two runs the same one."""

    name: str
    inputs: dict[str, Input]
    """What is read beside the configuration, by the setting that names it."""


def identify(config: RunConfig) -> Identity:
    """The same results asked for and the same content to read are the same run, so it resumes by itself."""
    inputs = inputs_of(config, read_first(config))
    _note_first(config, inputs)
    return Identity(f"{config.name}-{digest_json([results(config), _digests(inputs)])[:8]}", inputs)


def _digests(inputs: Mapping[str, Input]) -> dict[str, str]:
    return {setting: one.digest for setting, one in inputs.items()}


def read_first(config: RunConfig) -> dict[str, str]:
    """What this flow run has read first under the name of an object or a branch: a Retry of it reads that again."""
    place = _flow_run_place(config)
    return {} if place is None else read_inputs(open_store(config.store), place)


def read_inputs(store: Store, place: str) -> dict[str, str]:
    """What a flow run has noted of its inputs: SHA-256 by name. Raises `CorruptArtifact`."""
    data = store.get(place)
    remedy = f"To read the inputs as they are now, start another flow run, or {aside_command(place)} and retry this one"
    return {} if data is None else decode_value(dict[str, str], data, place, remedy)


def _note_first(config: RunConfig, inputs: Mapping[str, Input]) -> None:
    if (place := _flow_run_place(config)) is not None:
        read = {one.name: one.digest for one in inputs.values() if one.name in _elsewhere(config)}
        open_store(config.store).put_if_absent(place, encode_value(read))


def _elsewhere(config: RunConfig) -> set[str]:
    """Prompt files that are objects or of a revision: what their names stand for may change at any time."""
    return {file.path for file in (config.data, *config.evaluation.suites) if is_elsewhere(file.path)}


def _flow_run_place(config: RunConfig) -> str | None:
    if not _elsewhere(config):
        return None
    from prefect.runtime import flow_run  # not at the top: it takes a second, which `cures runs list` need not wait

    return None if flow_run.id is None else f"{FLOW_RUNS}/{flow_run.id}/inputs.json"


def started_config(store: Store, name: str) -> RunConfig:
    """The configuration of run `name`, as it was last changed, in terms of this version: what has been retired since is
    left out, so it is for reading. `ConfigError` if there is no such run."""
    return read_kept(RunConfig, readable(kept_config(store, name)))


def usable_config(store: Store, name: str) -> RunConfig:
    """The same, to compute with. Raises `ConfigError` where the run used what this version does not have."""
    kept = kept_config(store, name)
    if why := reasons(kept):
        raise ConfigError(
            f"run {name} can be read, and not gone on with: {'; '.join(why)}. Start a new run without it, or go on "
            "with the version that started this one"
        )
    return read_kept(RunConfig, readable(kept))


def kept_config(store: Store, name: str) -> dict[str, Any]:
    """The configuration of run `name` as it was last noted, in terms of the version that noted it."""
    first, changed = read_started(store, name), changes_of(store, name)
    return changed[-1].config if changed else first.config


def fork_of(store: Store, name: str) -> Fork | None:
    """What a run has taken over from another one; None where nothing, or where it was not started by a flow."""
    return started_config(store, name).fork if store.get(started_place(name)) else None


def snapshot_places(store_cfg: StoreConfig, name: str) -> SnapshotConfig:
    """Where the snapshots of a run, or of what was published under a name, lie; else the defaults of the store."""
    store = open_store(store_cfg)
    if store.get(started_place(name)):
        cfg = started_config(store, name).snapshot
    else:
        cfg = published_places(store, name) or SnapshotConfig()
    return cfg.within(store_cfg.url, store_cfg.endpoint_url)


def scratch_root(run: RunRef) -> Path:
    """Where stages keep unfinished work; beside a local store, so that publishing is a rename."""
    return Path(run.config.store.folder).absolute() / "scratch"
