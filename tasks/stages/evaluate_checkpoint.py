"""Stage: scores of the base policy or of a checkpoint on all suites."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cures_core.files import digest_json
from cures_core.jobs.evaluate import rows_file
from tasks.runs.records import Record, RunRef
from tasks.stages.evaluation_cache import forget_parts, recall, remember, rows_key
from tasks.stages.evaluation_shards import Shards, evaluation_job, generate_in_shards
from tasks.stages.job_process import run_job
from tasks.stages.stage import as_stage, run_stage
from tasks.stages.workspace import Workspace


@as_stage("evaluate_checkpoint {k}")
def evaluate_checkpoint(run: RunRef, k: int, data: Record, policy: Record, state: Record | None) -> Record:
    """Score the checkpoint of epoch `k` (0: the base policy, `state` None).

    Files: scores.json, items-<suite>.parquet, examples.jsonl. Figures: scores by suite, rollouts, tokens, unknown, and
    reused: the suites whose completions an earlier evaluation had made, of this run or another.
    """
    cfg = run.config
    inputs = {
        "evaluation": cfg.evaluation.model_dump(
            mode="json",
            exclude={"when": True, "chunk_prompts": True, "sharding": True, "suites": {"__all__": {"path"}}},
        ),
        "suites": data.figures["suites"],
        "rollout": cfg.rollout.decisive(),
        "reward": cfg.reward.model_dump(mode="json"),
        "device": cfg.device.model_dump(mode="json"),
        "policy": policy.figures["digest"],
        "weights": "" if state is None else state.figures["weights_digest"],
        "lora": None if state is None or cfg.training.lora is None else cfg.training.lora.model_dump(mode="json"),
    }
    keys = {suite.name: rows_key(suite, inputs, cfg.evaluation.seed) for suite in cfg.evaluation.suites}
    if again := run.times("evaluate_checkpoint", k):  # who asks for it wants other completions than those kept
        keys = {name: digest_json([key, run.name, again]) for name, key in keys.items()}

    def work(space: Workspace) -> Mapping[str, Any]:
        reused = [name for name, key in keys.items() if recall(space.store, key, rows_file(space.scratch, name))]
        missing = {name: key for name, key in keys.items() if name not in reused}
        if missing and cfg.evaluation.sharding.shards > 1:
            generate_in_shards(Shards(run, k, data, policy, state, missing), space)
        run_job(evaluation_job(run, k, data, policy, state, space.scratch, space.out))
        for name, key in missing.items():
            remember(space.store, key, rows_file(space.scratch, name))
        for key in keys.values():  # also those of a broken-off evaluation whose rows another has made meanwhile
            forget_parts(space.store, key)
        return {**json.loads((space.out / "figures.json").read_bytes()), "reused": reused}

    parents = [data, policy] if state is None else [data, policy, state]
    return run_stage(run, "evaluate_checkpoint", 3, inputs, parents, work, label=str(k))
