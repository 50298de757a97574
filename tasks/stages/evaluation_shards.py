"""An evaluation's completions made in shards by a Prefect task runner: threads of this machine, or a Ray cluster.

A shard is every n-th item of each suite. Its rows go to the store, so a failed shard is done again alone, by Prefect's
retries as by a resumed run. A rollout's random numbers do not know of shards, so neither do the figures.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from cures_core.config.evaluation import Sharding
from cures_core.config.storage import StoreConfig
from cures_core.errors import StoreUnavailable
from cures_core.events import JobEvent, PartDone
from cures_core.failures import Scene, explaining
from cures_core.jobs.evaluate import joined, rows_file
from cures_core.jobs.kept import keep, kept
from cures_core.jobs.scene import GO_ON
from cures_core.jobs.spec import Job
from tasks.progress import emit
from tasks.runs.figures import EpochFigures, PolicyFigures, ValidateFigures
from tasks.runs.prune import checkpoint_of
from tasks.runs.records import Record, RunRef, files_of
from tasks.stages.evaluation_cache import fetch_rows, keep_rows, part_key
from tasks.stages.job_process import allow_jobs, jobs_stopping, run_job, stop_jobs
from tasks.stages.prepare_policy import policy_folder
from tasks.stages.stage import RETRIES, RETRY_DELAYS_S, retryable
from tasks.stages.workspace import Workspace
from tasks.storage import open_store
from tasks.storage.s3_client import hurry


@dataclass(frozen=True)
class Shards:
    """What is evaluated: the policy of epoch `k` on the suites named in `keys`, the keys of their completions."""

    run: RunRef
    k: int
    data: Record[ValidateFigures]
    policy: Record[PolicyFigures]
    state: Record[EpochFigures] | None
    keys: Mapping[str, str]


def evaluation_job(
    run: RunRef,
    k: int,
    data: Record[ValidateFigures],
    policy: Record[PolicyFigures],
    state: Record[EpochFigures] | None,
    scratch: Path,
    out: Path,
) -> Job:
    """The job that scores a checkpoint, with paths of this machine."""
    store = open_store(run.config.store)
    return Job(
        name="evaluate",
        config=run.config,
        scratch=scratch,
        out=out,
        epoch=k,
        policy=str(policy_folder(run, policy)),
        policy_digest=policy.figures.digest if state is None else state.figures.weights_digest,
        checkpoint=None if state is None else checkpoint_of(state, files_of(store, state)),
        suites=files_of(store, data) / "suites",
    )


def generate_in_shards(what: Shards, space: Workspace) -> None:
    """Leave the rows of all suites where the scoring job looks for them.

    All shards end before the first failure is raised, so that what the others have made is kept.
    """
    cfg = what.run.config.evaluation.sharding
    parameters: dict[str, Any] = {name: getattr(what, name) for name in ("k", "data", "policy", "state", "keys")}
    run = what.run if cfg.runner == "threads" else _portable(what.run)
    try:
        with _task_runner(cfg) as runner, _resources(cfg):
            folder = str(space.scratch / "shards")
            shards = [{"run": run, **parameters, "i": i, "n": cfg.shards, "folder": folder} for i in range(cfg.shards)]
            failures = _failures([runner.submit(evaluate_shard, shard) for shard in shards])
    finally:
        allow_jobs()
    if failures:
        raise failures[0]
    for name, key in what.keys.items():
        parts = []
        for i in range(cfg.shards):
            path = space.scratch / "parts" / f"{name}-{i}.json"
            rows = kept(path) if fetch_rows(space.store, part_key(key, i, cfg.shards), path) else None
            if rows is None:
                raise StoreUnavailable(f"suite {name}: shard {i} was there and is gone; resume to make it again")
            parts.append(rows)
        keep(rows_file(space.scratch, name), joined(parts))


def _again(its_task: object, task_run: object, state: State[object]) -> bool:
    """As a stage, unless the run ends: jobs asked to stop then fail with `Preempted`, which elsewhere is retried."""
    return not jobs_stopping() and retryable(its_task, task_run, state)


@task(
    name="evaluate_shard",
    task_run_name="evaluate_shard {i} of {n}, epoch {k}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=_again,
    cache_policy=NO_CACHE,
    persist_result=False,
)
@explaining(Scene("evaluate_shard", go_on=GO_ON))
def evaluate_shard(
    run: RunRef,
    k: int,
    data: Record[ValidateFigures],
    policy: Record[PolicyFigures],
    state: Record[EpochFigures] | None,
    keys: dict[str, str],
    i: int,
    n: int,
    folder: str,
) -> None:
    """Generate shard `i` of `n` and put its rows into the store; nothing is left to do where they are there.

    Works below `folder`, that of the stage's holder. Runs on whatever machine the task runner chooses: it must reach
    the store, and a pretrained policy's folder.
    """
    store = open_store(run.config.store)
    place = Path(folder) / f"{i}-of-{n}"
    scratch = place / "scratch"
    parts = {name: part_key(key, i, n) for name, key in keys.items()}
    missing = [name for name, part in parts.items() if not fetch_rows(store, part, rows_file(scratch, name))]
    if missing:
        suites = tuple(suite for suite in run.config.evaluation.suites if suite.name in keys)
        evaluation = run.config.evaluation.model_copy(update={"suites": suites})
        config = run.config.model_copy(update={"evaluation": evaluation})
        job = evaluation_job(run, k, data, policy, state, scratch, place / "out")
        run_job(job.model_copy(update={"config": config, "shard": (i, n)}), _ignore)
        for name in missing:
            keep_rows(store, parts[name], rows_file(scratch, name))
    shutil.rmtree(place, ignore_errors=True)


def _ignore(_: JobEvent) -> None:
    """Progress within a shard: its stage tells how many shards are done."""


def _failures(futures: Sequence[PrefectFuture[None]]) -> list[Exception]:
    """What went wrong, once all shards have ended. Where the wait is broken off, jobs of this process end first."""
    found = []
    try:
        for done, future in enumerate(futures, 1):
            try:
                future.result()
            except Exception as error:  # it is raised again when the others have ended
                found.append(error)
            emit(PartDone(part="shard", done=done, total=len(futures)))
    except BaseException as error:
        hurry(error)
        stop_jobs()
        raise
    return found


def _task_runner(cfg: Sharding) -> TaskRunner[Any]:
    if cfg.runner == "threads":
        return ThreadPoolTaskRunner(max_workers=cfg.shards)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from prefect_ray import RayTaskRunner

    own = {"include_dashboard": False, "log_to_driver": False} if cfg.ray_address is None else {}
    made: TaskRunner[Any] = RayTaskRunner(address=cfg.ray_address, init_kwargs=own)
    return made


def _resources(cfg: Sharding) -> AbstractContextManager[object]:
    """What Ray keeps free for a shard."""
    if cfg.runner == "threads":
        return nullcontext()
    from prefect_ray.context import remote_options

    asked: AbstractContextManager[Any] = remote_options(num_gpus=cfg.ray_gpus)
    return asked


def _portable(run: RunRef) -> RunRef:
    """The run with absolute paths: another process may work in another folder."""
    cfg = run.config
    store = cfg.store.model_copy(
        update={name: str(Path(getattr(cfg.store, name)).absolute()) for name in _local_places(cfg.store)}
    )
    policy = cfg.policy
    if policy.type == "pretrained" and Path(policy.path).is_dir():
        policy = policy.model_copy(update={"path": str(Path(policy.path).absolute())})
    return run.model_copy(update={"config": cfg.model_copy(update={"store": store, "policy": policy})})


def _local_places(cfg: StoreConfig) -> tuple[str, ...]:
    return ("scratch",) if "://" in cfg.url else ("scratch", "url")
