"""Knows a policy's fingerprint: its log-probabilities of fixed tokens, which tell stale weights from synced ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cures_core.rollout.policy import CausalLM


def probe_ids(vocab_size: int, length: int = 32) -> tuple[int, ...]:
    """`length` token ids spread over the vocabulary, the same in every process."""
    return tuple(int(i) for i in np.random.Generator(np.random.Philox(key=0)).integers(0, vocab_size, length))


def probe_logprobs(model: Any, token_ids: Sequence[int]) -> NDArray[np.float32]:
    """Log-probabilities at temperature 1 of `token_ids[1:]`, each given those before it: shape (len - 1,).

    Two policies whose values differ by more than the precision of their arithmetic have different weights.
    """
    lm = CausalLM(model, next(model.parameters()).device)
    ids = torch.tensor([list(token_ids)], device=lm.device)
    with lm.evaluating():
        logprobs = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), dim=-1)
        values = logprobs.gather(-1, ids[0, 1:, None]).squeeze(-1)
    return np.asarray(values.cpu().numpy(), dtype=np.float32)
