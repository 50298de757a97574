"""The main flow: prompts in, a better policy and its posterior out. Reads like the stage table of ARCHITECTURE.md."""

from __future__ import annotations

from typing import Any

from prefect import flow

from cures_core.config.run import RunConfig
from cures_core.errors import CorruptArtifact
from cures_core.extras import require_extras
from cures_core.failures import explaining
from cures_core.plugins import require_plugins_allowed
from flows.ui.artifacts import progress_artifacts, publish_outcome
from flows.ui.logs import logging_progress
from tasks.runs.opening import open_run
from tasks.runs.records import Record, RunRef
from tasks.runs.summary import summarise
from tasks.stages.estimate_prior import estimate_prior
from tasks.stages.evaluate_checkpoint import evaluate_checkpoint
from tasks.stages.prepare_policy import prepare_policy
from tasks.stages.promote import promote
from tasks.stages.report import report
from tasks.stages.snapshot_posterior import snapshot_posterior
from tasks.stages.stage import NotCommitted, only_looking
from tasks.stages.train_epoch import train_epoch
from tasks.stages.validate_dataset import validate_dataset
from tasks.tracking import tracking


@flow(name="train", flow_run_name="train {config.name}", validate_parameters=True)
def train(config: RunConfig) -> dict[str, Any]:
    """Validate, estimate, train, evaluate, snapshot, promote, report; every stage skips what is committed already."""
    return run_stages(config)


def run_stages(config: RunConfig) -> dict[str, Any]:
    """The stages in their order, for this flow and those that prepare a configuration for it."""
    require_plugins_allowed(config)
    require_extras(config)
    with (
        explaining(),
        logging_progress(),
        progress_artifacts(config.steps_per_epoch),
        open_run(config) as run,
        tracking(run),
    ):
        summary, data, states = _chain(run)
    publish_outcome(config, summary, data, states)
    return summary


def already_done(run: RunRef) -> dict[str, Any] | None:
    """What the flow would return of a completed run, without a server; None where a stage would have to be done."""
    try:
        with explaining(), only_looking():
            summary, _, _ = _chain(run)
    except (NotCommitted, CorruptArtifact):  # the flow will mend it, and say so
        return None
    return {**summary, "stages": [{**stage, "cached": True} for stage in summary["stages"]]}


def _chain(run: RunRef) -> tuple[dict[str, Any], Record, list[Record]]:
    """Summary, clean data, and the states after the prior and every epoch."""
    config = run.config
    data = validate_dataset(run)
    policy = prepare_policy(run)
    prior = estimate_prior(run, data, policy)
    scores = [evaluate_checkpoint(run, 0, data, policy, None)]
    snapshots = [snapshot_posterior(run, 0, data, policy, prior, None)]
    states = [prior]
    for k in range(1, config.epochs + 1):
        states.append(train_epoch(run, k, data, policy, states[-1]))
        snapshots.append(snapshot_posterior(run, k, data, policy, states[-1], snapshots[-1]))
        if config.evaluation.due(k, config.epochs):
            scores.append(evaluate_checkpoint(run, k, data, policy, states[-1]))
    decision = promote(run, policy, states[-1], scores[0], scores[-1])
    page = report(run, data, policy, states, scores, snapshots, decision)
    return summarise(run, scores, states, snapshots[-1], decision, page), data, states
