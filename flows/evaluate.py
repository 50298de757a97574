"""A flow of its own for one question: how good is this checkpoint on these suites?"""

from __future__ import annotations

from prefect import flow

from cures_core.config.evaluation import EvaluationConfig
from cures_core.config.policy import PretrainedPolicy
from cures_core.config.run import RunConfig
from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError
from cures_core.extras import require_extras
from cures_core.plugins import require_plugins_allowed
from flows.ui.logs import errors_of_ours, logging_progress
from tasks.runs.figures import EpochFigures, EvaluateFigures, PolicyFigures, ValidateFigures
from tasks.runs.notes import find_run, stage_record
from tasks.runs.opening import open_run, started_config
from tasks.stages.evaluate_checkpoint import evaluate_checkpoint
from tasks.stages.prepare_policy import prepare_policy
from tasks.stages.validate_dataset import validate_dataset
from tasks.storage import Store, open_store


@flow(name="evaluate", flow_run_name="evaluate {run} epoch {epoch}", validate_parameters=True)
def evaluate(
    run: str, epoch: int, evaluation: EvaluationConfig | None = None, store: StoreConfig | None = None
) -> EvaluateFigures:
    """Score the checkpoint of `run` after `epoch` (0: the base policy) on `evaluation`'s suites (None: the run's)."""
    with errors_of_ours():
        return _evaluate(run, epoch, evaluation, store or StoreConfig())


def _evaluate(run: str, epoch: int, evaluation: EvaluationConfig | None, place: StoreConfig) -> EvaluateFigures:
    opened = open_store(place)
    run = find_run(opened, run)
    config = _config(opened, run, evaluation, place)
    state = stage_record(opened, run, EpochFigures, str(epoch)) if epoch else None
    if epoch and state is None:
        raise ConfigError(f"run {run} has no checkpoint of epoch {epoch}; `cures runs show {run}` lists its stages")
    require_plugins_allowed(config)
    require_extras(config)
    if not config.evaluation.suites:
        raise ConfigError(f"run {run} has no suites; give the flow some as evaluation.suites")
    with logging_progress(), open_run(config, "evaluation") as ref:
        data = validate_dataset(ref)
        # Other suites would be kept out of other rows: what the run has taught stays taught.
        taught = isinstance(config.policy, PretrainedPolicy) and config.policy.warm_start is not None
        policy = (stage_record(opened, run, PolicyFigures) if taught else None) or prepare_policy(ref, data)
        return evaluate_checkpoint(ref, epoch, data, policy, state).figures


def _config(store: Store, run: str, evaluation: EvaluationConfig | None, place: StoreConfig) -> RunConfig:
    """That of `run`, which trains nothing and promotes nothing, with the suites of `evaluation`."""
    config = started_config(store, run)
    fork = config.fork
    if fork is not None and evaluation is not None:  # with the prompts, a fork took over the suites as they were
        records = {label: key for label, key in fork.records.items() if label != ValidateFigures.stage}
        fork = fork.model_copy(update={"records": records})
    changes: dict[str, object] = {"store": place, "promotion": None, "faults": (), "fork": fork}
    if evaluation is not None:
        changes["evaluation"] = evaluation
    return RunConfig.model_validate({**config.model_dump(), **changes})
