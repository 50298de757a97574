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


_BLOCK = 256
"""Tokens whose probabilities are added up first: the block is found before the token in it."""

_PIECE = 1 << 18
"""Logits that a processor works on at once: a few arrays of them stay in its cache."""

_LIKELIEST = 1024
"""Tokens among which a nucleus is looked for before the whole vocabulary is sorted."""


def draw(
    logits: torch.Tensor, uniforms: torch.Tensor, *, temperature: float, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and their log-probabilities, both (rows,), from logits (rows, vocabulary) and uniforms (rows,).

    The token is the first whose cumulative probability, in the order of token ids, exceeds the uniform: float noise in
    the logits moves a token only where the uniform lies within that noise of a boundary. The log-probability is
    log softmax(logits / temperature) in float32, before the top-p cut. Temperature 0 takes the most likely token and
    gives its log-probability at temperature 1.

    On CUDA nothing here waits for the device, so that a step that ends in a draw can be captured.
    """
    rows, width = logits.shape
    step = rows if logits.is_cuda else max(1, _PIECE // width)
    drawn = [_draw(logits[at : at + step], uniforms[at : at + step], temperature, top_p) for at in range(0, rows, step)]
    tokens, logprobs = zip(*drawn, strict=True)
    return torch.cat(tokens), torch.cat(logprobs)


def _draw(
    logits: torch.Tensor, uniforms: torch.Tensor, temperature: float, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    scaled = logits.float() if temperature in (0, 1) else logits.float() / temperature
    logprobs = torch.log_softmax(scaled, dim=-1)
    if temperature == 0:
        best = logprobs.max(dim=-1)
        return best.indices, best.values
    weights = logprobs.exp()
    if top_p < 1:
        weights = nucleus(weights, top_p)
    tokens = inverse_cdf(weights, uniforms.unsqueeze(-1))
    return tokens.squeeze(-1), logprobs.gather(-1, tokens).squeeze(-1)


def inverse_cdf(weights: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Indices (rows, 1): in every row of `weights` (rows, width) the first whose cumulative share exceeds its uniform.

    With S the sums of blocks of 256 weights, B the block at which the running sum of S first exceeds u = uniform *
    sum(S) and s the sum of the blocks before B, it is the first index of B at which the running sum inside B exceeds
    u - s.
    Sums are float64 (over a large vocabulary float32 would drown the rare tokens) and differ from those of one running
    sum by rounding alone: the index is the same wherever u is further than 1e-12 of sum(S) from the border between two.
    """
    rows, width = weights.shape
    if width <= _BLOCK:
        cdf = weights.cumsum(dim=-1, dtype=torch.float64)
        return _first_above(cdf, uniforms * cdf[:, -1:])
    if spare := -width % _BLOCK:
        weights = torch.nn.functional.pad(weights, (0, spare))
    blocks = weights.view(rows, -1, _BLOCK)
    sums = blocks.sum(dim=-1, dtype=torch.float64)
    cdf = sums.cumsum(dim=-1)
    target = uniforms * cdf[:, -1:]
    block = _first_above(cdf, target)
    before = cdf.gather(-1, block) - sums.gather(-1, block)
    chosen = blocks.gather(1, block.unsqueeze(-1).expand(-1, 1, _BLOCK)).squeeze(1)
    inside = _first_above(chosen.cumsum(dim=-1, dtype=torch.float64), target - before)
    return (block * _BLOCK + inside).clamp_(max=width - 1)


def _first_above(cdf: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The first index whose running sum exceeds the target; where rounding leaves none, the last that added to it."""
    last = torch.searchsorted(cdf, cdf[:, -1:].contiguous())
    # NaN is above everything: an index beyond the end would be worse than a NaN that is seen later.
    return torch.searchsorted(cdf, target, right=True).minimum(last).clamp_(max=cdf.shape[-1] - 1)


def nucleus(probs: torch.Tensor, top_p: float) -> torch.Tensor:
    """`probs` (rows, vocabulary) with every token outside the smallest set of mass `top_p` set to 0, not renormalised.

    Tokens as likely as the least likely of the set are kept: ties do not depend on an order.
    """
    if probs.is_cuda or probs.shape[-1] <= _LIKELIEST:
        least, _ = _least_likely(probs.sort(dim=-1, descending=True).values, top_p)
        return torch.where(probs >= least, probs, 0.0)
    least, mass = _least_likely(probs.topk(_LIKELIEST, dim=-1).values, top_p)
    if len(wide := (mass < top_p).nonzero()[:, 0]):
        least[wide], _ = _least_likely(probs[wide].sort(dim=-1, descending=True).values, top_p)
    return torch.where(probs >= least, probs, 0.0)


def _least_likely(ranked: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(probability of the last token of the nucleus (rows, 1), mass of all of `ranked` (rows, 1))."""
    cdf = ranked.cumsum(dim=-1, dtype=torch.float64)
    last = (cdf - ranked < top_p).sum(dim=-1, keepdim=True) - 1
    return ranked.gather(-1, last), cdf[:, -1:]
