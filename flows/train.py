"""The main flow: prompts in, a better policy and its posterior out. Reads like the stage table of ARCHITECTURE.md."""

from __future__ import annotations

from typing import Any

from prefect import flow
from tasks.estimate_prior import estimate_prior
from tasks.evaluate_checkpoint import evaluate_checkpoint
from tasks.prepare_policy import prepare_policy
from tasks.promote import promote
from tasks.report import report
from tasks.snapshot_posterior import snapshot_posterior
from tasks.train_epoch import train_epoch
from tasks.validate_dataset import validate_dataset

from cures_core.config.run import RunConfig
from tasks.runs import open_run


@flow(name="cures-train", flow_run_name="train {config.name}", log_prints=False, validate_parameters=True)
def train(config: RunConfig) -> dict[str, Any]:
    """Validate, estimate, train, evaluate, snapshot, promote, report; every stage skips what is committed already."""
    with open_run(config) as run:
        data = validate_dataset(run)
        policy = prepare_policy(run)
        prior = estimate_prior(run, data, policy)
        before = evaluate_checkpoint(run, data, policy, None)
        snapshots = [snapshot_posterior(run, 0, data, policy, prior, None)]
        state, scores = prior, [before]
        for k in range(1, config.epochs + 1):
            state = train_epoch(run, k, data, policy, state)
            snapshots.append(snapshot_posterior(run, k, data, policy, state, snapshots[-1]))
            if config.evaluation.due(k, config.epochs):
                scores.append(evaluate_checkpoint(run, data, policy, state))
        decision = promote(run, policy, state, before, scores[-1])
        return report(run, [data, policy, prior, *scores, state, *snapshots, decision])
