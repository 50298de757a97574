"""Beta and beta-binomial formulas of a pass rate, elementwise on arrays; and the maximum-likelihood fit of a prior.

Notation: p ~ Beta(a, b), spread s = sqrt(p(1 - p)), n rollouts of which `successes` are right.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cures_core.curriculum import special

Floats = npt.NDArray[np.float64]


def expected_spread(a: Floats, b: Floats) -> Floats:
    """E[s] = G(a) G(b) / (a + b) with G(z) = Gamma(z + 1/2) / Gamma(z); in (0, 1/2]."""
    log_g = special.gammaln(a + 0.5) - special.gammaln(a) + special.gammaln(b + 0.5) - special.gammaln(b)
    return np.asarray(np.exp(log_g) / (a + b))


def plugin_spread(a: Floats, b: Floats) -> Floats:
    """s of the mean; overrates what is little known."""
    mean = a / (a + b)
    return np.asarray(np.sqrt(mean * (1 - mean)))


def expected_variance(a: Floats, b: Floats) -> Floats:
    """E[p (1 - p)] = a b / ((a + b)(a + b + 1))."""
    return np.asarray(a * b / ((a + b) * (a + b + 1)))


def log_all_wrong(a: Floats, b: Floats, n: Floats) -> Floats:
    """log P(0 of n right) under the beta-binomial."""
    return np.asarray(special.betaln(a, b + n) - special.betaln(a, b))


def fit_prior(successes: Floats, failures: Floats) -> tuple[float, float]:
    """(a, b) of the beta-binomial with the greatest likelihood for these counts, which may be fractional.

    Without any evidence (1, 1). Bounded to 0.02..500 each, where the likelihood may have no maximum (all rates equal).
    """
    used = successes + failures > 0
    pairs, weights = np.unique(np.stack([successes[used], failures[used]]), axis=1, return_counts=True)
    if not weights.size:
        return 1.0, 1.0
    s, f = pairs

    def loss(log_ab: Floats) -> tuple[float, Floats]:
        a, b = np.exp(log_ab)
        value = special.betaln(a + s, b + f) - special.betaln(a, b)
        shared = special.digamma(a + b) - special.digamma(a + b + s + f)
        slope = [
            np.dot(weights, special.digamma(a + s) - special.digamma(a) + shared) * a,
            np.dot(weights, special.digamma(b + f) - special.digamma(b) + shared) * b,
        ]
        return -float(np.dot(weights, value)), -np.array(slope)

    bounds = [(np.log(0.02), np.log(500.0))] * 2
    a, b = np.exp(special.smallest(loss, np.zeros(2), bounds))
    return float(a), float(b)
