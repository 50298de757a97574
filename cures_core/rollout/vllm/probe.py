"""Knows a policy's fingerprint: its log-probabilities of fixed tokens, which tell stale weights from synced ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cures_core.errors import EngineFailed
from cures_core.rollout.hf.causal_lm import CausalLM

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Floats = NDArray[np.float32]

_ROUNDING = 1e-3
"""Nats below which a move of the trainer's probe is not told from rounding."""


def check_arrival(trainer: Floats, engine: Floats, before: tuple[Floats, Floats] | None, bound: float) -> float:
    """Largest difference (nats) between the trainer's and the engine's log-probabilities of the probe.

    `before`: both as they were before the weights were sent. Raises `EngineFailed` where the difference is beyond
    `bound`, and where the trainer's values have moved well above rounding while the engine's have not: an update
    smaller than `bound` that did not arrive.
    """
    gap = float(np.abs(trainer - engine).max())
    if not gap <= bound:
        raise EngineFailed(
            f"weight sync: trainer and engine differ by {gap:.3g} nats on the probe, rollout.fingerprint_bound is "
            f"{bound:g}. The new weights (or the adapter) did not arrive, or the engine computes another model."
        )
    if before is not None:
        moved, followed = (float(np.abs(new - old).max()) for new, old in zip((trainer, engine), before, strict=True))
        if moved > _ROUNDING and followed < moved / 10:
            raise EngineFailed(
                f"weight sync: the trainer's log-probabilities moved by {moved:.3g} nats on the probe, the engine's by "
                f"{followed:.3g}. The new weights (or the adapter) did not arrive."
            )
    return gap


def probe_ids(vocab_size: int, length: int = 32) -> tuple[int, ...]:
    """`length` token ids spread over the vocabulary, the same in every process."""
    return tuple(int(i) for i in np.random.Generator(np.random.Philox(key=0)).integers(0, vocab_size, length))


def probe_logprobs(model: PreTrainedModel, token_ids: Sequence[int]) -> NDArray[np.float32]:
    """Log-probabilities at temperature 1 of `token_ids[1:]`, each given those before it: shape (len - 1,).

    Two policies whose values differ by more than the precision of their arithmetic have different weights.
    """
    lm = CausalLM(model, next(model.parameters()).device)
    ids = torch.tensor([list(token_ids)], device=lm.device)
    with lm.evaluating():
        logprobs = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), dim=-1)
        values = logprobs.gather(-1, ids[0, 1:, None]).squeeze(-1)
    return np.asarray(values.cpu().numpy(), dtype=np.float32)
