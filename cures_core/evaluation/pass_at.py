"""Knows the figures of an item from its counts: c of s sampled completions are correct."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def pass_at(j: int, correct: npt.ArrayLike, samples: npt.ArrayLike) -> Floats:
    """Unbiased probability, (n,), that one of `j` completions is correct: 1 - C(s - c, j) / C(s, j).

    Equation 1 of arXiv 2107.03374, as a product of j ratios in 0..1: no binomial coefficient can overflow. A factor is
    exactly 0 as soon as fewer than j wrong completions are left. Raises `ValueError` unless 1 <= j <= min(samples).
    """
    c, s = _counts(correct, samples)
    if j < 1 or (s.size and j > s.min()):
        raise ValueError(f"pass@{j} needs at least {max(1, j)} samples of every item, there are {s.min(initial=j)}")
    all_wrong = np.ones(c.shape)
    for i in range(j):
        all_wrong *= (s - c - i) / (s - i)
    return 1.0 - all_wrong


def pass_ladder(k: int) -> list[int]:
    """The j of which pass@j is reported: 1, 2, 4 ... below k, and k."""
    return [j for j in (1 << np.arange(k.bit_length())).tolist() if j < k] + [k]


def _counts(correct: npt.ArrayLike, samples: npt.ArrayLike) -> tuple[Ints, Ints]:
    c, s = np.asarray(correct, dtype=np.int64), np.asarray(samples, dtype=np.int64)
    c, s = np.broadcast_arrays(c, s)
    if np.any(s < 1) or np.any(c < 0) or np.any(c > s):
        raise ValueError("counts must hold 0 <= correct <= samples and 1 <= samples for every item")
    return c, s
