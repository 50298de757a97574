"""The flow of a changed prompt set: the main flow, starting from what an earlier run knows of the prompts."""

from __future__ import annotations

from prefect import flow

from cures_core.config.run import RunConfig
from cures_core.config.urls import S3Url
from flows.train import run_stages
from flows.ui.logs import errors_of_ours
from tasks.ci.retraining import in_places_of, with_earlier_posterior
from tasks.runs.summary import RunSummary


@flow(name="retrain", flow_run_name="retrain {config.name} {key}", validate_parameters=True)
def retrain(
    config: RunConfig,
    data_path: S3Url = "",
    start_from: str = "latest",
    key: str = "",
    judged: RunConfig | None = None,
) -> RunSummary:
    """`key` names the change that asked for the run, `judged` is the configuration that the change was judged with: it
    trains, in the places that `config` names. `data_path` replaces the configuration's (empty: it does not)."""
    with errors_of_ours():
        if judged is not None:
            config = in_places_of(config, judged)
        if data_path:
            config = config.model_copy(update={"data": config.data.model_copy(update={"path": data_path})})
        return run_stages(with_earlier_posterior(config, start_from or "latest"))
