"""Knows Weights & Biases: one W&B run for each run, found again by its id when the run is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cures_core.config.marks import results
from cures_core.config.tracking import TrackingConfig
from cures_core.errors import ConfigError
from cures_core.extras import missing_extra
from tasks.runs.records import RunRef
from tasks.tracking.tracker import Table, require_answer

_STEP = "step"


def start(run: RunRef) -> WandbTracker:
    assert run.config.tracking.wandb is not None
    return WandbTracker(run, run.config.tracking.wandb)


def probe(cfg: TrackingConfig) -> None:
    settings = _wandb().setup().settings  # of its environment and its files, which may name another server
    if settings.mode not in ("offline", "disabled", "dryrun"):
        require_answer("tracking.wandb", settings.base_url, "Set WANDB_MODE=offline, or leave the key away")


def _wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise missing_extra("wandb", "tracking.wandb", error, "leave the key away") from error
    return wandb


class WandbTracker:
    """Key and mode come from the environment, as W&B reads them (WANDB_API_KEY, WANDB_MODE=offline)."""

    def __init__(self, run: RunRef, project: str) -> None:
        """Raises `MissingExtra` where W&B is not installed, `ConfigError` where it does not let this machine in."""
        wandb, config = _wandb(), results(run.config)
        try:
            self._run: Any = wandb.init(
                project=project,
                id=run.name,
                name=run.name,
                config=config,
                resume="allow",
                reinit="create_new",  # whatever else this process tracks stays as it is
            )
        except wandb.errors.Error as error:
            raise ConfigError(
                f"tracking.wandb: {error}. Set WANDB_API_KEY, or WANDB_MODE=offline, or leave the key away"
            ) from error
        self._table: Any = wandb.Table
        # W&B's own counter only grows; ours goes back when a killed run is resumed.
        self._run.define_metric("*", step_metric=_STEP)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log({**figures, _STEP: step})

    def log_table(self, name: str, table: Table, step: int) -> None:
        shown = self._table(columns=list(table.columns), data=[list(row) for row in table.rows])
        self._run.log({name: shown, _STEP: step})

    def close(self, completed: bool) -> None:
        self._run.finish(exit_code=0 if completed else 1)
