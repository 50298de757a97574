"""Knows how a token is drawn from logits: one counter-based uniform a token, inverse CDF, temperature, top-p."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Identity = tuple[int, str, int]
"""(request seed, prompt id, rollout index): all that a rollout's random numbers depend on."""


def uniforms(identities: Sequence[Identity], length: int) -> NDArray[np.float64]:
    """Uniforms in [0, 1) of shape (rows, length): row r is the Philox stream keyed by the hash of its identity."""
    bits = np.random.Philox(key=0)
    generator = np.random.Generator(bits)
    zeros = np.zeros(4, np.uint64)
    out = np.empty((len(identities), length))
    for row, (seed, prompt_id, index) in zip(out, identities, strict=True):
        digest = hashlib.blake2b(f"{seed}\0{prompt_id}\0{index}".encode(), digest_size=16).digest()
        key = np.frombuffer(digest, "<u8")
        # Re-keying one generator is four times as fast as making one a row.
        bits.state = {
            "bit_generator": "Philox",
            "state": {"counter": zeros, "key": key},
            "buffer": zeros,
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        generator.random(out=row)
    return out


def draw(
    logits: torch.Tensor, uniforms: torch.Tensor, *, temperature: float, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and their log-probabilities, both (rows,), from logits (rows, vocabulary) and uniforms (rows,).

    The token is the first whose cumulative probability, in the order of token ids, exceeds the uniform: float noise in
    the logits moves a token only where the uniform lies within that noise of a boundary. The log-probability is
    log softmax(logits / temperature) in float32, before the top-p cut. Temperature 0 takes the most likely token and
    gives its log-probability at temperature 1.
    """
    logprobs = torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
    if temperature == 0:
        best = logprobs.max(dim=-1)
        return best.indices, best.values
    weights = logprobs.exp()
    if top_p < 1:
        weights = nucleus(weights, top_p)
    # float64: over a large vocabulary a float32 sum would drown the rare tokens.
    cdf = weights.cumsum(dim=-1, dtype=torch.float64)
    target = uniforms.unsqueeze(-1) * cdf[:, -1:]
    tokens = torch.searchsorted(cdf, target, right=True).clamp_(max=logits.shape[-1] - 1)
    return tokens.squeeze(-1), logprobs.gather(-1, tokens).squeeze(-1)


def nucleus(probs: torch.Tensor, top_p: float) -> torch.Tensor:
    """`probs` (rows, vocabulary) with every token outside the smallest set of mass `top_p` set to 0, not renormalised.

    Tokens as likely as the least likely of the set are kept: ties do not depend on an order.
    """
    ranked = probs.sort(dim=-1, descending=True).values
    before = ranked.cumsum(dim=-1, dtype=torch.float64) - ranked
    last = (before < top_p).sum(dim=-1, keepdim=True) - 1
    return torch.where(probs >= ranked.gather(-1, last), probs, 0.0)
