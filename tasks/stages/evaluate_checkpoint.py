"""Stage: scores of the base policy or of a checkpoint on all suites."""

from __future__ import annotations

from cures_core.config.marks import is_within
from cures_core.files import digest_json
from cures_core.jobs.evaluate import answering, judged_by, rows_file
from cures_core.own_code import keyed
from tasks.runs.figures import EpochFigures, EvaluateFigures, Figures, PolicyFigures, ValidateFigures
from tasks.runs.records import Record, RunRef
from tasks.stages.evaluation_cache import delete_parts, fetch_rows, keep_rows, rows_key
from tasks.stages.evaluation_shards import Shards, evaluation_job, generate_in_shards
from tasks.stages.job_process import run_job
from tasks.stages.keys import ADAPTERS, POLICY, REDACTION, SUITES, settings
from tasks.stages.stage import Made, as_stage, read_made, run_stage
from tasks.stages.workspace import Workspace


@as_stage("evaluate_checkpoint {k}")
def evaluate_checkpoint(
    run: RunRef,
    k: int,
    data: Record[ValidateFigures],
    policy: Record[PolicyFigures],
    state: Record[EpochFigures] | None,
) -> Record[EvaluateFigures]:
    """Score the checkpoint of epoch `k` (0: the base policy, `state` None).

    Files: scores.json, items-<suite>.parquet, examples.jsonl. Completions that an earlier evaluation has made, of this
    run or another, are taken from there.
    """
    cfg = run.config
    scored = {
        **keyed(cfg, POLICY if state is None else (*POLICY, *ADAPTERS)),
        **keyed(cfg, REDACTION),
        "policy": policy.figures.digest,
        "weights": "" if state is None else state.figures.weights_digest,
    }
    suites = {
        suite.name: {"items": data.figures.suites[suite.name], **answering(cfg, suite)}
        for suite in cfg.evaluation.suites
    }
    common = {key: value for key, value in settings(cfg, "evaluate_checkpoint").items() if not is_within(key, SUITES)}
    inputs = {"settings": common, "suites": suites, **scored}
    adapters = None if state is None else cfg.training.lora
    keys = {
        suite.name: rows_key(suites[suite.name], scored, (*judged_by(cfg, suite), adapters))
        for suite in cfg.evaluation.suites
    }
    if again := run.times("evaluate_checkpoint", k):  # who asks for it wants other completions than those kept
        keys = {name: digest_json([key, run.name, again]) for name, key in keys.items()}

    def work(space: Workspace) -> Made[EvaluateFigures]:
        reused = [name for name, key in keys.items() if fetch_rows(space.store, key, rows_file(space.scratch, name))]
        missing = {name: key for name, key in keys.items() if name not in reused}
        if missing and cfg.evaluation.sharding.shards > 1:
            generate_in_shards(Shards(run, k, data, policy, state, missing), space)
        run_job(evaluation_job(run, k, data, policy, state, space.scratch, space.out))
        for name, key in missing.items():
            keep_rows(space.store, key, rows_file(space.scratch, name))
        for key in keys.values():  # also those of a broken-off evaluation whose rows another has made meanwhile
            delete_parts(space.store, key)
        return read_made(EvaluateFigures, space.out, reused=list(reused))

    parents: list[Record[Figures]] = [data, policy, *([] if state is None else [state])]
    return run_stage(run, EvaluateFigures, 4, inputs, parents, work, label=str(k))
