"""What a job is told: one JSON file with pointers in, folders out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cures_core.config.base import Strict
from cures_core.config.run import RunConfig

JobName = Literal["warm_start", "prior", "epoch", "evaluate", "measure"]


class Job(Strict):
    """One unit of work. Paths are absolute; `out` is filled and then belongs to the parent."""

    name: JobName
    """Which work to do."""
    config: RunConfig
    """The run's resolved configuration."""
    scratch: Path
    """In-stage checkpoints: survives a crash, is deleted after publication."""
    out: Path
    """Where results go; wiped at the start."""
    epoch: int = 0
    """Epoch number, from 1 (`epoch` only)."""
    policy: str = ""
    """Folder of the base policy."""
    policy_digest: str = ""
    """Content digest of the base policy: part of what evaluation reports."""
    checkpoint: Path | None = None
    """Checkpoint folder to go on from, or to evaluate; None means the base policy itself."""
    prompts: Path | None = None
    """Parquet file of the clean prompt set."""
    posterior: Path | None = None
    """Parquet file of the posterior to start from."""
    shard: tuple[int, int] | None = None
    """(i, n): generate for every n-th item from item i on, and score nothing (`evaluate` only)."""
    suites: Path | None = None
    """Folder with one Parquet file for each evaluation suite."""
    solutions: Path | None = None
    """File of rows with worked solutions (`warm_start` of a pretrained policy only)."""
