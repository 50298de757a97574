"""Stage: one epoch of training in a process of its own, resumable at every step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cures_core.checkpoints.checkpoint import weights_digest
from cures_core.config.training import PLACEMENT
from cures_core.files import digest_file
from cures_core.jobs.spec import Job
from cures_core.manifest import MANIFEST
from tasks.runs.prune import checkpoint_of
from tasks.runs.records import Record, RunRef, files_of
from tasks.stages.job_process import run_job
from tasks.stages.prepare_policy import policy_folder
from tasks.stages.stage import as_stage, run_stage
from tasks.stages.unfinished import checkpoints_in_store
from tasks.stages.workspace import Workspace
from tasks.storage import open_store


@as_stage("train_epoch {k}")
def train_epoch(run: RunRef, k: int, data: Record, policy: Record, state: Record) -> Record:
    """Train from `state`: the prior's record for k = 1, else that of epoch k - 1.

    Files: checkpoint/, posterior.parquet, tally.json, timings.jsonl. Figures: checkpoint_digest, weights_digest,
    posterior_digest, step, rollouts and tokens so far, calibration.
    """
    cfg = run.config
    inputs = {
        "epoch": k,
        "seed": cfg.seed,
        "steps": cfg.steps_per_epoch,
        "curriculum": cfg.curriculum.model_dump(mode="json"),
        "rollout": cfg.rollout.decisive(),
        "reward": cfg.reward.model_dump(mode="json"),
        "training": cfg.training.model_dump(mode="json", exclude=PLACEMENT),
        "device": cfg.device.model_dump(mode="json"),
        "prompts": data.figures["digest"],
        "policy": policy.figures["digest"],
        "posterior": state.figures["posterior_digest"],
        "checkpoint": state.figures.get("checkpoint_digest", ""),
    }

    def work(space: Workspace) -> Mapping[str, Any]:
        store = open_store(cfg.store)
        before = files_of(store, state)
        job = Job(
            name="epoch",
            config=cfg,
            scratch=space.scratch,
            out=space.out,
            epoch=k,
            policy=str(policy_folder(run, policy)),
            checkpoint=checkpoint_of(state, before) if k > 1 else None,
            prompts=files_of(store, data) / "prompts.parquet",
            posterior=before / "posterior.parquet",
        )
        with checkpoints_in_store(store, space.unfinished, f"{run.name}-{run.token}", space.scratch):
            run_job(job)
        checkpoint = space.out / "checkpoint"
        return {
            "checkpoint_digest": digest_file(checkpoint / MANIFEST),
            "weights_digest": weights_digest(checkpoint),
            "posterior_digest": digest_file(space.out / "posterior.parquet"),
            **json.loads((space.out / "figures.json").read_bytes()),
        }

    return run_stage(run, "train_epoch", 2, inputs, [data, policy, state], work, label=str(k))
