"""What a run takes over from another one that it goes on from with other settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cures_core.config.base import Strict
from cures_core.config.marks import Placement, Result

Label = Annotated[str, Field(pattern=r"^[a-z_]+( [0-9]+)?$")]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]+$")]


class Fork(Strict):
    """A run that goes on from another one: up to `epoch` its stages are the other's, whatever the settings say now."""

    run: Placement[str] = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """The run that it goes on from."""
    epoch: Result[int] = Field(ge=0)
    """Last epoch that is taken over; 0: the prior alone."""
    step: Result[int] = Field(ge=0)
    """Optimizer step from which on the settings of this run hold."""
    records: Result[dict[Label, Key]]
    """Keys of the records that are taken over, by stage and label, as in `train_epoch 2`."""
    checkpoint: Result[str] = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """SHA-256 of the manifest of the checkpoint inside epoch `epoch` + 1 that it goes on from; empty: from that epoch's
    beginning."""

    @property
    def words(self) -> str:
        """As in "fork of RUN from step 12 (epoch 2, checkpoint 0123456789ab)"."""
        inside = f", checkpoint {self.checkpoint[:12]}" if self.checkpoint else ""
        return f"fork of {self.run} from step {self.step} (epoch {self.epoch + 1}{inside})"
