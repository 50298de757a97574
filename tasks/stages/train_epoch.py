"""Stage: one epoch of training in a process of its own, resumable at every step."""

from __future__ import annotations

from cures_core.checkpoints.checkpoint import weights_digest
from cures_core.config.fork import Fork
from cures_core.errors import TrainingDiverged
from cures_core.files import digest_file
from cures_core.jobs.spec import Job
from cures_core.manifest import MANIFEST
from tasks.runs.figures import EpochFigures, PolicyFigures, StateFigures, ValidateFigures
from tasks.runs.prune import checkpoint_of
from tasks.runs.records import Record, RunRef, files_of, has_figures
from tasks.stages.job_process import run_job
from tasks.stages.keys import settings
from tasks.stages.prepare_policy import policy_folder
from tasks.stages.stage import Made, as_stage, read_made, run_stage, stage_key
from tasks.stages.unfinished import begin_at, checkpoints_in_store, note_spoilt
from tasks.stages.workspace import Workspace
from tasks.storage import open_store

SCHEMA = 3


@as_stage("train_epoch {k}")
def train_epoch(
    run: RunRef,
    k: int,
    data: Record[ValidateFigures],
    policy: Record[PolicyFigures],
    state: Record[StateFigures],
) -> Record[EpochFigures]:
    """Train from `state`: the prior's record for k = 1, else that of epoch k - 1.

    Files: checkpoint/, posterior.parquet, tally.json, rollouts.parquet, timings.jsonl.
    """
    cfg = run.config
    begun = _begun(run, k)

    def work(space: Workspace) -> Made[EpochFigures]:
        store = open_store(cfg.store)
        before = files_of(store, state)
        job = Job(
            name="epoch",
            config=cfg,
            scratch=space.scratch,
            out=space.out,
            epoch=k,
            policy=str(policy_folder(run, policy)),
            checkpoint=checkpoint_of(state, before) if has_figures(state, EpochFigures) else None,
            prompts=files_of(store, data) / "prompts.parquet",
            posterior=before / "posterior.parquet",
        )
        if begun is not None:
            begin_at(store, begun, space.scratch)
        afresh = f'cures run --resume {run.name} --from "train_epoch {k}"'
        with checkpoints_in_store(store, space.unfinished, f"{run.name}-{run.token}", space.scratch, afresh):
            try:
                run_job(job)
            except TrainingDiverged:
                note_spoilt(store, space.scratch, space.unfinished)
                raise
        checkpoint = space.out / "checkpoint"
        return read_made(
            EpochFigures,
            space.out,
            checkpoint_digest=digest_file(checkpoint / MANIFEST),
            weights_digest=weights_digest(checkpoint),
            posterior_digest=digest_file(space.out / "posterior.parquet"),
        )

    inputs = _inputs(run, k, data, policy, state)
    return run_stage(run, EpochFigures, SCHEMA, inputs, [data, policy, state], work, label=str(k))


def epoch_key(
    run: RunRef, k: int, data: Record[ValidateFigures], policy: Record[PolicyFigures], state: Record[StateFigures]
) -> str:
    """The key of the record that `train_epoch` makes, or would have made."""
    return stage_key(run, EpochFigures, str(k), SCHEMA, _inputs(run, k, data, policy, state))[0]


def _inputs(
    run: RunRef, k: int, data: Record[ValidateFigures], policy: Record[PolicyFigures], state: Record[StateFigures]
) -> dict[str, object]:
    begun = _begun(run, k)
    return {
        "epoch": k,
        "settings": settings(run.config, "train_epoch"),
        "prompts": data.figures.digest,
        "policy": policy.figures.digest,
        "posterior": state.figures.posterior_digest,
        "checkpoint": state.figures.checkpoint_digest,
        **({} if begun is None else {"begun": {"step": begun.step, "checkpoint": begun.checkpoint}}),
    }


def _begun(run: RunRef, k: int) -> Fork | None:
    """Where a fork goes on inside this epoch; None for any other epoch, and one that starts at its beginning."""
    fork = run.config.fork
    return fork if fork is not None and fork.checkpoint and k == fork.epoch + 1 else None
