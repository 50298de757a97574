"""The main flow: prompts in, a better policy and its posterior out. Reads like the stage table of ARCHITECTURE.md."""

from __future__ import annotations

from prefect import flow

from cures_core.config.run import RunConfig
from cures_core.errors import CorruptArtifact
from cures_core.failures import explaining
from flows.ui.artifacts import progress_artifacts, publish_outcome
from flows.ui.logs import errors_of_ours, logging_progress
from flows.ui.names import name_flow_run
from tasks.readiness import require_ready
from tasks.runs.again import stages_in_order
from tasks.runs.figures import EpochFigures, StateFigures
from tasks.runs.opening import open_run
from tasks.runs.reading import RunRecords
from tasks.runs.records import Record, RunRef
from tasks.runs.summary import RunSummary, summarise
from tasks.stages.estimate_prior import estimate_prior
from tasks.stages.evaluate_checkpoint import evaluate_checkpoint
from tasks.stages.job_start import import_ahead
from tasks.stages.prepare_policy import prepare_policy
from tasks.stages.promote import promote
from tasks.stages.report import report
from tasks.stages.snapshot_posterior import snapshot_posterior
from tasks.stages.stage import NotCommitted, only_looking
from tasks.stages.train_epoch import train_epoch
from tasks.stages.unfinished import keep_beginning
from tasks.stages.validate_dataset import validate_dataset
from tasks.storage import open_store
from tasks.tracking import tracking


@flow(name="train", flow_run_name="train {config.name}", validate_parameters=True)
def train(config: RunConfig) -> RunSummary:
    """Validate, estimate, train, evaluate, snapshot, promote, report; every stage skips what is committed already."""
    with errors_of_ours():
        return run_stages(config)


def run_stages(config: RunConfig) -> RunSummary:
    """The stages in their order, for this flow and those that prepare a configuration for it."""
    require_ready(config)
    import_ahead(config)
    with (
        logging_progress(config.training.entropy_alarm),
        progress_artifacts(config.steps_per_epoch),
        open_run(config) as run,
        tracking(run),
    ):
        name_flow_run(config.name, run.name)
        keep_beginning(open_store(config.store), run)
        summary, records = _chain(run)
    publish_outcome(config, summary, records)
    return summary


def already_done(run: RunRef) -> RunSummary | None:
    """What the flow would return of a completed run, without a server; None where a stage would have to be done, or
    noted again."""
    with explaining():
        try:
            with only_looking():
                summary, _ = _chain(run)
        except (NotCommitted, CorruptArtifact):  # the flow will mend it, and say so
            return None
    if not {"-".join(stage.name.split()) for stage in summary.stages}.issuperset(stages_in_order(run.config)):
        return None
    cached = tuple(stage.model_copy(update={"cached": True}) for stage in summary.stages)
    return summary.model_copy(update={"stages": cached})


def _chain(run: RunRef) -> tuple[RunSummary, RunRecords]:
    config = run.config
    data = validate_dataset(run)
    policy = prepare_policy(run, data)
    prior = estimate_prior(run, data, policy)
    evaluations = {0: evaluate_checkpoint(run, 0, data, policy, None)}
    snapshots = {0: snapshot_posterior(run, 0, data, policy, prior, None)}
    epochs: dict[int, Record[EpochFigures]] = {}
    state: Record[StateFigures] = prior
    for k in range(1, config.epochs + 1):
        state = epochs[k] = train_epoch(run, k, data, policy, state)
        snapshots[k] = snapshot_posterior(run, k, data, policy, state, snapshots[k - 1])
        if config.evaluation.due(k, config.epochs):
            evaluations[k] = evaluate_checkpoint(run, k, data, policy, epochs[k])
    decision = promote(run, policy, state, evaluations[0], evaluations[max(evaluations)])
    records = RunRecords(data, policy, prior, epochs, evaluations, snapshots, decision)
    return summarise(run, records, report(run, records)), records
