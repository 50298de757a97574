"""Supervised steps that go on where a killed process stopped, and end with the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cures_core.checkpoints.checkpoint import Checkpoint
from cures_core.checkpoints.in_epoch import latest_step, save_step
from cures_core.errors import TrainingDiverged

if TYPE_CHECKING:
    import torch

Row = dict[str, Any]
OnStep = Callable[[int, float], None]
"""Told of every step that is done: its number, from 1, and its loss."""
WARMUP_SHARE = 0.1


class Learner(Protocol):
    """What is taught. All of a step's randomness follows from its number."""

    def step(self, number: int) -> Row:
        """Do step `number`, from 0; its figures, `loss` (nats a token) among them."""
        ...

    def tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Trainable weights, and the optimizer's state."""
        ...

    def load(self, weights: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor]) -> None:
        """Take what `tensors` gave."""
        ...


def teach(learner: Learner, steps: int, checkpoint_every: int, scratch: Path, on_step: OnStep) -> list[Row]:
    """All `steps`, from the newest checkpoint in `scratch` on; the figures of each, with its number from 1.

    Checkpoints of earlier versions hold no figures: then the rows begin behind them.
    """
    step, rows = 0, list[Row]()
    if (saved := latest_step(scratch)) is not None:
        learner.load(saved.weights, saved.optimizer)
        step, rows = saved.step, list(saved.metrics)
    while step < steps:
        row = learner.step(step)
        step += 1
        rows.append({"step": step, **row})
        on_step(step, row["loss"])
        if step % checkpoint_every == 0 and step < steps:
            save_step(Checkpoint(*learner.tensors(), {}, {"step": step, "loss": row["loss"]}, rows), scratch)
    return rows


def require_finite(number: int, loss: float, norm: float, updated: bool) -> None:
    """Raises `TrainingDiverged` after a step without an update."""
    if not updated:
        raise TrainingDiverged(
            f"warm start, step {number + 1}: loss {loss}, gradient norm {norm}. Start a run with a lower rate: "
            "--set policy.warm_start.learning_rate=..."
        )


def rate_at(number: int, steps: int, peak: float) -> float:
    """Learning rate of step `number`, from 0: linear warm-up over a tenth of all steps, linear decay to a tenth."""
    warmup = max(1, round(WARMUP_SHARE * steps))
    if number < warmup:
        return peak * (number + 1) / warmup
    return peak * (1.0 - 0.9 * (number - warmup) / max(1, steps - warmup))
