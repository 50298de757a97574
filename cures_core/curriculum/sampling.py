"""Which prompts: probabilities from signals, and an exact draw without replacement."""

from __future__ import annotations

import numpy as np

from cures_core.config.curriculum import ProportionalWeighting, SoftmaxWeighting
from cures_core.curriculum.beta import Floats
from cures_core.curriculum.posterior import Ints

_LEAST_SIGNAL = 1e-6  # so that a signal of zero is a small weight, not an impossible one


def weights(signal: Floats, weighting: ProportionalWeighting | SoftmaxWeighting) -> Floats:
    """Unnormalised weights of prompts with signals in 0..1, elementwise: rows may be updated one by one.

    `proportional`: signal^power. `softmax`: exp((signal - 1) / tau), which is exp(signal / tau) up to a factor.
    """
    if isinstance(weighting, ProportionalWeighting):
        return np.asarray(np.maximum(signal, _LEAST_SIGNAL) ** weighting.power)
    return np.asarray(np.exp(np.maximum((signal - 1.0) / weighting.temperature, -690.0)))


def probabilities(weight: Floats, explore: float) -> Floats:
    """rho of every prompt: weights normalised, mixed with the share `explore` of uniform drawing."""
    return np.asarray(weight * ((1 - explore) / weight.sum()) + explore / len(weight))


def draw(p: Floats, num: int, rng: np.random.Generator) -> Ints:
    """`num` rows without replacement in proportion to p, as if drawn one by one (Plackett-Luce), ascending.

    An exponential race, the smallest E / p with E ~ Exp(1): Gumbel top-k (arXiv 1903.06059) without logarithms.
    All rows if there are no more than `num`.
    """
    if num >= len(p):
        return np.arange(len(p), dtype=np.int64)
    finish = rng.standard_exponential(len(p))
    finish /= p
    return np.sort(smallest(finish, num)).astype(np.int64)


def smallest(values: Floats, num: int) -> Ints:
    """Places of the `num` smallest of more than `num` values. A look at a part tells which can be among them at all."""
    part = values[::64]
    few = min(len(part) - 1, 2 * num // 64 + 16)
    candidates = np.flatnonzero(values <= np.partition(part, few)[few])
    if not num < len(candidates) < len(values):
        candidates = np.arange(len(values))
    return candidates[np.argpartition(values[candidates], num)[:num]]


def effective_sample_size(p: Floats) -> float:
    """1 / sum rho^2, in prompts; `p` need not be normalised."""
    return float(p.sum() ** 2 / np.dot(p, p))


def weight_ratio(p: Floats) -> float:
    """Largest probability over smallest."""
    return float(p.max() / p.min())
