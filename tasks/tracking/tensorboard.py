"""Knows TensorBoard: one folder of events for each run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cures_core.config.tracking import TrackingConfig
from cures_core.extras import missing_extra
from cures_core.files import require_writable
from tasks.runs.records import RunRef
from tasks.tracking.tracker import Table


def start(run: RunRef) -> TensorboardTracker:
    assert run.config.tracking.tensorboard is not None
    return TensorboardTracker(run, run.config.tracking.tensorboard)


def probe(cfg: TrackingConfig) -> None:
    if cfg.tensorboard is not None:
        require_writable(Path(cfg.tensorboard), "tracking.tensorboard")


class TensorboardTracker:
    """A resumed run writes another file into the same folder; TensorBoard shows them as one."""

    def __init__(self, run: RunRef, folder: str) -> None:
        """Raises `MissingExtra` where TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing_extra("tensorboard", "tracking.tensorboard", error, "leave the key away") from error
        make: Any = SummaryWriter
        self._writer: Any = make(log_dir=str(Path(folder) / run.name))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, global_step=step)
        self._writer.flush()

    def log_table(self, name: str, table: Table, step: int) -> None:
        """Nothing: TensorBoard has no tables."""

    def close(self, completed: bool) -> None:
        self._writer.close()
