"""Knows confidence intervals of a mean over items: a bootstrap that resamples items, and Wilson's for plain shares.

Items are a sample of the problems the suite stands for, and an item's completions are a sample of what the policy does on
it. Resampling items carries both: with a_i the figure of item i, Var(mean a) = Var(a) / n, and Var(a) already holds the
noise of its completions. Resampling the completions as well would count that noise twice.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t

Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """Ends of an interval, `low` <= `high`."""

    low: float
    high: float


def wilson(successes: int, n: int, confidence: float) -> Interval:
    """Wilson's score interval of a share of `n` >= 1 independent items (Wilson 1927)."""
    z2 = float(norm.isf((1 - confidence) / 2)) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = float(np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))) / (1 + z2 / n)
    # At both ends the formula gives 0 and 1 up to rounding.
    return Interval(0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def bootstrap(
    values: npt.ArrayLike, confidence: float, resamples: int, seed: int, bounds: tuple[float, float]
) -> Interval:
    """Percentile interval of the mean of `values` (n,), n >= 1, which lie between `bounds`; items are resampled.

    The percentiles are moved outwards as Student's t with n - 1 degrees asks for (Hesterberg 2015, arXiv 1411.5279,
    section 3.3): plain ones are too narrow in small suites. Sums of whole-number values are exact, and the order of
    `values` means nothing. Where all values are equal there is nothing to resample: see `unanimous`.
    """
    array = np.asarray(values, dtype=np.float64)
    distinct, counts = np.unique(array, return_counts=True)
    n = array.size
    if distinct.size == 1:
        return unanimous(float(distinct[0]), n, confidence, bounds)
    rng = np.random.default_rng(seed)
    # n draws with replacement, kept as how often each distinct value was drawn: no array grows with n x resamples.
    drawn = rng.multinomial(n, counts / n, size=resamples)
    means = np.einsum("rd,d->r", drawn.astype(np.float64), distinct) / n
    tail = tail_share(n, confidence)
    low, high = np.quantile(means, tail, method="lower"), np.quantile(means, 1 - tail, method="higher")
    return Interval(float(low), float(high))


def tail_share(n: int, confidence: float) -> float:
    """Share of resampled means left out at each end: Phi(-sqrt(n / (n - 1)) t), for n >= 2 items."""
    return float(norm.cdf(np.sqrt(n / (n - 1)) * t.ppf((1 - confidence) / 2, n - 1)))


def unanimous(value: float, n: int, confidence: float, bounds: tuple[float, float]) -> Interval:
    """Interval of a mean of which `n` items all say `value`.

    Wilson's upper end for 0 of n bounds the share of items that say otherwise, and those may say anything in `bounds`.
    """
    others = wilson(0, n, confidence).high
    floor, ceiling = bounds
    return Interval(value - others * (value - floor), value + others * (ceiling - value))
