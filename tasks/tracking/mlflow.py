"""Knows MLflow: one MLflow run for each run, found again by its tag when the run is resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from cures_core.config.marks import results
from cures_core.config.tracking import TrackingConfig
from cures_core.errors import ConfigError
from cures_core.extras import missing_extra
from cures_core.secrets import masked
from tasks.runs.records import RunRef
from tasks.tracking.tracker import Table, require_answer

TAG = "cures.run"
_TABLES = "mlflow.loggedArtifacts"
"""Tag by which MLflow's pages know which artifacts are tables."""
_LONGEST_PARAM = 500
_PARAMS_AT_ONCE = 100


def start(run: RunRef) -> MlflowTracker:
    cfg = run.config.tracking
    assert cfg.mlflow is not None
    return MlflowTracker(run, cfg.mlflow, cfg.mlflow_experiment)


def probe(cfg: TrackingConfig) -> None:
    if cfg.mlflow is not None and cfg.mlflow.startswith(("http://", "https://")):
        require_answer("tracking.mlflow", cfg.mlflow, "Start it, or leave the key away")


class MlflowTracker:
    """Through the client alone: nothing of MLflow's global state is touched."""

    def __init__(self, run: RunRef, uri: str, experiment: str) -> None:
        """Raises `MissingExtra` where MLflow is not installed, `ConfigError` where the server does not answer."""
        try:
            from mlflow.entities import Metric, Param
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise missing_extra("mlflow", "tracking.mlflow", error, "leave the key away") from error
        self._metric: Any = Metric
        try:
            self._client: Any = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)
            self.run_id: str = self._opened(run.name)
            # What decides results never changes under a run, as MLflow wants it of parameters.
            params = [Param(key, _text(value)[:_LONGEST_PARAM]) for key, value in results(run.config).items()]
            for start in range(0, len(params), _PARAMS_AT_ONCE):
                self._client.log_batch(self.run_id, params=params[start : start + _PARAMS_AT_ONCE])
        except MlflowException as error:
            raise ConfigError(
                f"tracking.mlflow: {uri} does not work: {masked(str(error))}. Start it, or leave the key away"
            ) from error

    def log(self, figures: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        self._client.log_batch(self.run_id, metrics=[self._metric(k, v, now, step) for k, v in figures.items()])

    def log_table(self, name: str, table: Table, step: int) -> None:
        """As an artifact in the form of pandas' `orient="split"`, which MLflow's pages show as a table. Not by its own
        `log_table`, which would add the rows of a resumed run to those that are there."""
        path = f"{name}.json"
        self._client.log_dict(self.run_id, {"columns": table.columns, "data": table.rows}, path)
        listed = json.loads(self._client.get_run(self.run_id).data.tags.get(_TABLES, "[]"))
        if (entry := {"path": path, "type": "table"}) not in listed:
            self._client.set_tag(self.run_id, _TABLES, json.dumps([*listed, entry]))

    def close(self, completed: bool) -> None:
        self._client.set_terminated(self.run_id, "FINISHED" if completed else "FAILED")

    def _opened(self, name: str) -> str:
        earlier = self._client.search_runs([self._experiment], f"tags.`{TAG}` = '{name}'", max_results=1)
        if earlier:
            run_id = str(earlier[0].info.run_id)
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        return str(self._client.create_run(self._experiment, tags={TAG: name}, run_name=name).info.run_id)


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value)
