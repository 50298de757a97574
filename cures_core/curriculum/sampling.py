"""Which prompts: log weights from signals, and an exact draw without replacement."""

from __future__ import annotations

import numpy as np
from scipy import special

from cures_core.config.curriculum import ProportionalWeighting, SoftmaxWeighting
from cures_core.curriculum.beta import Floats
from cures_core.curriculum.posterior import Ints

_LEAST_SIGNAL = 1e-6  # so that a signal of zero is a small weight, not an impossible one


def log_probabilities(signal: Floats, weighting: ProportionalWeighting | SoftmaxWeighting, explore: float) -> Floats:
    """log rho of every prompt: weights by `weighting`, normalised, mixed with the share `explore` of uniform."""
    if isinstance(weighting, ProportionalWeighting):
        log_w = weighting.power * np.log(np.maximum(signal, _LEAST_SIGNAL))
    else:
        log_w = signal / weighting.temperature
    log_p = log_w - special.logsumexp(log_w)
    if explore == 0:
        return np.asarray(log_p)
    with np.errstate(divide="ignore"):
        return np.asarray(np.logaddexp(np.log1p(-explore) + log_p, np.log(explore) - np.log(len(signal))))


def draw(log_p: Floats, num: int, rng: np.random.Generator) -> Ints:
    """`num` rows without replacement in proportion to exp(log_p), as if drawn one by one (Plackett-Luce), ascending.

    Gumbel top-k (arXiv 1903.06059): the largest log_p + Gumbel noise. All rows if there are no more than `num`.
    """
    if num >= len(log_p):
        return np.arange(len(log_p), dtype=np.int64)
    keys = log_p + rng.gumbel(size=len(log_p))
    return np.sort(np.argpartition(-keys, num)[:num]).astype(np.int64)


def effective_sample_size(log_p: Floats) -> float:
    """1 / sum rho^2, in prompts."""
    return float(np.exp(2 * special.logsumexp(log_p) - special.logsumexp(2 * log_p)))


def weight_ratio(log_p: Floats) -> float:
    """Largest probability over smallest."""
    return float(np.exp(min(log_p.max() - log_p.min(), 700.0)))
