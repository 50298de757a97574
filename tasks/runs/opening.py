"""Runs: their names, leases, and the notes that commands and reports read. None of it decides what is done again."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cures_core.config.run import RunConfig
from cures_core.config.snapshot import SnapshotConfig
from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError, CuresError, MissingInput
from cures_core.faults import arm
from cures_core.files import canonical_json, digest_json
from cures_core.prompts.flags import flags_digest, read_flags
from cures_core.prompts.lines import Snapshot
from cures_core.secrets import masked
from tasks.inputs.prompt_files import Inputs, is_elsewhere
from tasks.progress import emit
from tasks.runs.records import Record, RunRef
from tasks.snapshots.published import published_places
from tasks.storage import Store, open_store
from tasks.storage.lease import Lease, holder_gone


@contextmanager
def open_run(config: RunConfig) -> Iterator[RunRef]:
    """Hold the run's lease while the block runs, and note how it ended.

    Raises `LeaseHeld` (exit code 75) if another process works on the same run.
    """
    store = open_store(config.store)
    name, data_digest, file_digest = identify(config)
    lease = Lease(store, name, config.store.lease_ttl_s)
    arm(config.faults, Path(config.store.folder).absolute() / "faults" / name)
    ref = RunRef(name=name, config=config, token=lease.token, data_digest=data_digest, file_digest=file_digest)
    try:
        first = {"config": config.model_dump(mode="json"), "data_digest": data_digest, "started_at": _now()}
        store.put_if_absent(f"runs/{name}/run.json", canonical_json(first))
        _note_status(store, name, "running")
        emit({"event": "run", "run": name})
        yield ref
        _note_status(store, name, "completed")
    except BaseException as error:
        kind = "stopped" if isinstance(error, KeyboardInterrupt) or not isinstance(error, Exception) else "failed"
        message = masked(str(error).splitlines()[0]) if str(error) else type(error).__name__
        _note_status(store, name, kind, message if isinstance(error, CuresError) else type(error).__name__)
        raise
    finally:
        lease.close()


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
    return {} if data is None else json.loads(data)


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
    data = store.get(f"runs/{name}/run.json")
    if data is None:
        known = ", ".join(run_names(store)) or "none"
        raise ConfigError(f"no run {name} in {store_cfg.url}; runs there: {known}")
    started = json.loads(data)
    config = RunConfig.model_validate(started["config"]).model_copy(update={"store": store_cfg})
    now_name, digest, _ = identify(config)
    if digest != started["data_digest"]:
        raise ConfigError(
            f"{config.data.path} has changed since run {name} was started ({started['data_digest'][:12]} then, "
            f"{digest[:12]} now). Restore it to resume, or start a new run with --config"
        )
    if now_name != name:
        raise ConfigError(f"run {name} was started by a version whose defaults differ; start a new run with --config")
    return config


def started_config(store: Store, name: str) -> RunConfig:
    """The configuration that run `name` was started with. `ConfigError` if there is no such run."""
    data = store.get(f"runs/{name}/run.json")
    if data is None:
        raise ConfigError(f"no run {name} in this store; runs there: {', '.join(run_names(store)) or 'none'}")
    return RunConfig.model_validate(json.loads(data)["config"])


def run_names(store: Store) -> list[str]:
    return sorted({key.split("/")[1] for key in store.list("runs")})


def snapshot_places(store_cfg: StoreConfig, name: str) -> SnapshotConfig:
    """Where the snapshots of a run, or of what was published under a name, lie; else the defaults of the store."""
    store = open_store(store_cfg)
    data = store.get(f"runs/{name}/run.json")
    if data is not None:
        cfg = RunConfig.model_validate(json.loads(data)["config"]).snapshot
    else:
        cfg = published_places(store, name) or SnapshotConfig()
    return cfg.within(store_cfg.url, store_cfg.endpoint_url)


def scratch_root(run: RunRef) -> Path:
    """Where stages keep unfinished work; beside a local store, so that publishing is a rename."""
    return Path(run.config.store.folder).absolute() / "scratch"


def note_stage(store: Store, run: RunRef, label: str, record: Record, *, cached: bool) -> None:
    """Remember which record this run used for a stage, and whether it was there already."""
    place = f"runs/{run.name}/stages/{record.stage}{f'-{label}' if label else ''}.json"
    note = {"stage": record.stage, "label": label, "key": record.key, "cached": cached, "noted_at": _now()}
    store.put(place, canonical_json(note))


def stage_notes(store: Store, name: str) -> list[dict[str, Any]]:
    """The notes of a run, oldest first."""
    notes = [json.loads(store.get(key) or b"{}") for key in store.list(f"runs/{name}/stages")]
    return sorted(notes, key=lambda note: (note["noted_at"], note["stage"], note["label"]))


def stage_record(store: Store, name: str, stage: str, label: str = "") -> Record | None:
    """The record a run used for a stage."""
    note = store.get(f"runs/{name}/stages/{stage}{f'-{label}' if label else ''}.json")
    if note is None:
        return None
    data = store.get(f"stages/{stage}/{json.loads(note)['key']}.json")
    return None if data is None else Record.model_validate_json(data)


def run_status(store: Store, name: str) -> dict[str, Any]:
    return json.loads(store.get(f"runs/{name}/status.json") or b'{"status":"unknown"}')  # type: ignore[no-any-return]


def run_overview(store: Store, name: str) -> dict[str, Any]:
    """run, status, at (UTC), error, stages (how many were reached).

    A run whose process is known to have ended without a word has the status `died`.
    """
    status = run_status(store, name)
    if status["status"] == "running":
        gone = holder_gone(store, name, started_config(store, name).store.lease_ttl_s)
        if gone is not None:
            error = f"its process is gone ({gone}); go on with: cures run --resume {name}"
            status = {**status, "status": "died", "error": error}
    number = len(list(store.list(f"runs/{name}/stages")))
    fields = {key: status.get(key, "") for key in ("status", "at", "error")}
    return {"run": name, **fields, "stages": number}


def _note_status(store: Store, name: str, status: str, error: str = "") -> None:
    store.put(f"runs/{name}/status.json", canonical_json({"status": status, "at": _now(), "error": error}))


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")
