"""Knows confidence intervals of a mean over items: a bootstrap that resamples items, and Wilson's for plain shares.

Items are a sample of the problems that the suite stands for, and an item's completions a sample of what the policy does
on it. Resampling items carries both: with a_i the figure of item i, Var(mean a) = Var(a) / n, and Var(a) already holds
the noise of its completions. Resampling the completions as well would count that noise twice.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtrit  # scipy.stats is built on them, and takes a second to import

Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """Ends of an interval, `low` <= `high`."""

    low: float
    high: float


def wilson(successes: int, n: int, confidence: float) -> Interval:
    """Wilson's score interval of a share of `n` >= 1 independent items (Wilson 1927)."""
    z2 = float(ndtri((1 - confidence) / 2)) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = float(np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))) / (1 + z2 / n)
    # At both ends the formula gives 0 and 1 up to rounding.
    return Interval(0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def bootstrap(
    values: npt.ArrayLike, confidence: float, resamples: int, seed: int, halves: tuple[float, ...]
) -> Interval:
    """Percentile interval of the mean of `values` (n,), n >= 1; items are resampled.

    Two departures from the plain percentile bootstrap, which is too narrow in small suites: the percentiles lie further
    out, as Student's t asks for (`tail_share`), and half an item of each value of `halves` is mixed in. For a figure in
    0..1 these are 0 and 1, as in Jeffreys' interval of a share: without them, 50 items that nearly all fail have an
    upper end below the truth one time in seven, and items that all agree an interval of length 0. For a difference it
    is 0: without it, two items that both gain would pass for a gain that chance does not explain.

    Sums of whole numbers are exact, and the order of `values` means nothing.
    """
    array = np.asarray(values, dtype=np.float64)
    distinct, counts = np.unique(np.append(array, halves), return_counts=True)
    weights = counts - 0.5 * np.isin(distinct, halves)
    rng = np.random.default_rng(seed)
    # n draws with replacement, kept as how often each distinct value was drawn: no array grows with n x resamples.
    drawn = rng.multinomial(array.size, weights / weights.sum(), size=resamples)
    means = np.einsum("rd,d->r", drawn.astype(np.float64), distinct) / array.size
    tail = tail_share(array.size, confidence)
    low, high = np.quantile(means, tail, method="lower"), np.quantile(means, 1 - tail, method="higher")
    return Interval(float(low), float(high))


def tail_share(n: int, confidence: float) -> float:
    """Share of the resampled means left out at each end: Phi(-sqrt(n / (n - 1)) t), t Student's with n - 1 degrees.

    The "expanded percentile interval" of Hesterberg 2015 (American Statistician 69, 371-386). One item counts as two.
    """
    degrees = max(n, 2) - 1
    return float(ndtr(np.sqrt((degrees + 1) / degrees) * stdtrit(degrees, (1 - confidence) / 2)))
