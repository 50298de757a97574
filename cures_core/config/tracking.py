"""Which experiment trackers hear of a run, beside the metrics.jsonl that every run keeps."""

from __future__ import annotations

from pydantic import Field

from cures_core.config.base import Strict
from cures_core.config.marks import Placement
from cures_core.config.urls import LocalName, TrackingUrl

TRACKERS = ("mlflow", "tensorboard", "wandb")
"""Each has a setting of its name, an extra (`cures_core.extras`) and a module in `tasks/tracking`."""


class TrackingConfig(Strict):
    """Trackers; a run computes the same with and without them, and resumes into the same tracked run."""

    mlflow: Placement[TrackingUrl | None] = None
    """MLflow tracking URI, such as http://127.0.0.1:5000 (extra `mlflow`). None: not tracked."""
    mlflow_experiment: Placement[LocalName] = Field(default="cures", min_length=1)
    """Name of the MLflow experiment; it is made where it does not exist."""
    tensorboard: Placement[LocalName | None] = None
    """Folder under which each run gets a folder of TensorBoard events (extra `tensorboard`). None: not tracked."""
    wandb: Placement[LocalName | None] = Field(default=None, min_length=1)
    """Project of Weights & Biases (extra `wandb`); key and mode are W&B's own variables. None: not tracked."""

    @property
    def chosen(self) -> list[str]:
        """Names of the trackers that hear of the run."""
        return [name for name in TRACKERS if getattr(self, name) is not None]
