"""How in-epoch checkpoints are written and kept."""

from __future__ import annotations

from pydantic import Field

from cures_core.config.base import Strict
from cures_core.config.marks import Operation


class CheckpointConfig(Strict):
    """Files of the training state. Nothing here changes what is computed."""

    keep_last: Operation[int] = Field(default=2, ge=1)
    """In-epoch checkpoints kept. Beyond them the newest one is kept that was read back intact and was written after a
    step with a finite loss, as long as none of the newer ones is such."""
    max_shard_mib: Operation[float] = Field(default=4096.0, gt=0)
    """Largest size of a file of tensors; what fits goes into one file."""
    background: Operation[bool] = True
    """Write while the next step is computed, from a copy of the state in the memory of the host. A step counts as saved
    only when its checkpoint is whole; a job that stops waits for that."""

    @property
    def shard_bytes(self) -> int:
        return max(1, int(self.max_shard_mib * 2**20))
