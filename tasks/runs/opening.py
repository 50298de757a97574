"""Runs: what makes two the same one, and how one is held while its stages run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cures_core.config.run import RunConfig
from cures_core.config.snapshot import SnapshotConfig
from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError, CorruptArtifact, CuresError, MissingInput, StoreUnavailable
from cures_core.faults import arm
from cures_core.files import canonical_json, digest_json
from cures_core.prompts.flags import flags_digest, read_flags
from cures_core.prompts.lines import Snapshot
from cures_core.secrets import masked
from tasks.inputs.prompt_files import Inputs, is_elsewhere
from tasks.progress import emit
from tasks.runs.again import times_again
from tasks.runs.notes import Started, note_status, read_started, started_place, utc_now
from tasks.runs.records import RunRef
from tasks.snapshots.published import published_places
from tasks.stages.job_process import allow_jobs, stop_jobs
from tasks.stages.workspace import sweep
from tasks.storage import Store, open_store
from tasks.storage.fencing import commit
from tasks.storage.lease import Lease
from tasks.storage.values import decode_value, encode_value, set_aside

_log = logging.getLogger(__name__)


@contextmanager
def open_run(config: RunConfig) -> Iterator[RunRef]:
    """Hold the run's lease while the block runs, and note how it ended.

    Raises `LeaseHeld` (exit code 75) if another process works on the same run.
    """
    store = open_store(config.store)
    name, data_digest, file_digest = identify(config)
    lease = Lease(store, name, config.store.lease_ttl_s, stop_jobs)
    arm(config.faults, Path(config.store.folder).absolute() / "faults" / name)
    ref = RunRef(name=name, config=config, token=lease.token, data_digest=data_digest, file_digest=file_digest)
    try:
        _note_start(store, ref)
        note_status(store, name, ref.token, "running")
        _sweep(store, ref)
        ref = ref.model_copy(update={"again": dict(times_again(store, name))})
        emit({"event": "run", "run": name})
        yield ref
        _sweep(store, ref, ended=True)
        note_status(store, name, ref.token, "completed")
    except BaseException as error:
        kind = "stopped" if isinstance(error, KeyboardInterrupt) or not isinstance(error, Exception) else "failed"
        message = masked(str(error).splitlines()[0]) if str(error) else type(error).__name__
        told = message if isinstance(error, CuresError) else type(error).__name__
        note_status(store, name, ref.token, kind, told)
        raise
    finally:
        lease.close()
        allow_jobs()


def _note_start(store: Store, run: RunRef) -> None:
    """Write how the run was started, once; a damaged note is set aside and written again."""
    place = started_place(run.name)
    raw = store.get(place)
    if raw is not None:
        try:
            read_started(store, run.name)
            return
        except CorruptArtifact as error:
            _log.warning("%s Set aside as %s", error, set_aside(store, place, raw))
    config = run.config.model_dump(mode="json")
    first = Started(config=config, data_digest=run.data_digest, started_at=utc_now())
    commit(store, run.name, run.token, place, encode_value(first), raw)


def _sweep(store: Store, run: RunRef, *, ended: bool = False) -> None:
    """Remove what killed stages have left, as far as nobody will go on with it. Best effort."""
    try:
        sweep(store, scratch_root(run), run.config.store.lease_ttl_s, run.name if ended else None)
    except (StoreUnavailable, CorruptArtifact) as error:
        _log.warning("leftovers of killed stages stay for now: %s", error)


class Identity(NamedTuple):
    """What makes two runs the same one."""

    name: str
    data_digest: str
    """Of the prompt set's bytes, and of the flags where there is a list."""
    file_digest: str
    """SHA-256 of the prompt set's bytes alone, hex."""


def identify(config: RunConfig) -> Identity:
    """The same configuration and data are the same run, so it resumes by itself."""
    path = Inputs.of(config, _read_first(config)).local(config.data.path)
    if not path.exists():
        raise MissingInput(f"{config.data.path}: no such prompt set; set data.path to a JSONL or Parquet file")
    data_digest = file_digest = Snapshot.of(path).digest
    _note_first(config, file_digest)
    if config.data.flags is not None:  # other flags, another set; the same flags again, the same run again
        data_digest = digest_json([data_digest, flags_digest(read_flags(Path(config.data.flags)))])
    return Identity(f"{config.name}-{digest_json([config.decisive(), data_digest])[:8]}", data_digest, file_digest)


def _read_first(config: RunConfig) -> dict[str, str]:
    """What this flow run has read first under the name of an object or a branch: a Retry of it reads that again."""
    place = _flow_run_place(config)
    data = None if place is None else open_store(config.store).get(place)
    remedy = "To read the inputs as they are now, start another flow run"
    return {} if data is None or place is None else decode_value(dict[str, str], data, place, remedy)


def _note_first(config: RunConfig, digest: str) -> None:
    if (place := _flow_run_place(config)) is not None:
        open_store(config.store).put_if_absent(place, canonical_json({config.data.path: digest}))


def _flow_run_place(config: RunConfig) -> str | None:
    if not is_elsewhere(config.data.path):
        return None
    from prefect.runtime import flow_run  # not at the top: it takes a second, which `cures runs list` need not wait

    return None if flow_run.id is None else f"flow-runs/{flow_run.id}/inputs.json"


def resumed_config(store_cfg: StoreConfig, name: str) -> RunConfig:
    """The configuration a run was started with. `ConfigError` if there is none, or the prompt set has changed since."""
    store = open_store(store_cfg)
    started = read_started(store, name)
    config = RunConfig.model_validate(started.config).model_copy(update={"store": store_cfg})
    now_name, digest, _ = identify(config)
    if digest != started.data_digest:
        raise ConfigError(
            f"{config.data.path} has changed since run {name} was started ({started.data_digest[:12]} then, "
            f"{digest[:12]} now). Restore it to resume, or start a new run with --config"
        )
    if now_name != name:
        raise ConfigError(f"run {name} was started by a version whose defaults differ; start a new run with --config")
    return config


def started_config(store: Store, name: str) -> RunConfig:
    """The configuration that run `name` was started with. `ConfigError` if there is no such run."""
    return RunConfig.model_validate(read_started(store, name).config)


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
