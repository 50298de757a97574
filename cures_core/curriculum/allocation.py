"""How many rollouts: the integers that minimise the batch gradient's variance under an exact budget."""

from __future__ import annotations

import heapq

import numpy as np

from cures_core.curriculum.beta import Floats
from cures_core.curriculum.posterior import Ints
from cures_core.errors import ConfigError


def allocate_equally(num: int, budget: int, rng: np.random.Generator) -> Ints:
    """`budget` over `num` prompts; what does not divide goes to prompts at random, one each. Nothing for no prompt."""
    if not num:
        return np.zeros(0, dtype=np.int64)
    counts = np.full(num, budget // num, dtype=np.int64)
    counts[rng.permutation(num)[: budget - counts.sum()]] += 1
    return counts


def allocate(sigma: Floats, budget: int, low: int, high: int) -> Ints:
    """Integers n with low <= n_i <= high and sum exactly `budget` that minimise sum sigma_i^2 / n_i.

    The objective is separable and convex, so the optimum takes the best marginal gains sigma^2 / (n (n + 1)) there are:
    all those above a threshold, found by bisection, then the few that are left one by one.
    Ties go to the lower row (rows are in order of content id). Raises `ConfigError` naming the feasible range.
    """
    num = len(sigma)
    if not num * low <= budget <= num * high:
        raise ConfigError(
            f"{budget} rollouts do not fit {num} prompts of {low} to {high} each: use {num * low} to {num * high}"
        )
    if not num:
        return np.zeros(0, dtype=np.int64)
    weights = np.maximum(sigma, 1e-12)
    counts = _above_threshold(weights, budget, low, high)
    gains = [(-_gain(w, n), i) for i, (w, n) in enumerate(zip(weights, counts, strict=True)) if n < high]
    heapq.heapify(gains)
    for _ in range(budget - int(counts.sum())):
        _, i = heapq.heappop(gains)
        counts[i] += 1
        if counts[i] < high:
            heapq.heappush(gains, (-_gain(weights[i], counts[i]), i))
    return counts


def _above_threshold(weights: Floats, budget: int, low: int, high: int) -> Ints:
    """Counts after taking every gain above the lowest threshold that the budget bears.

    w^2 / (n (n + 1)) > t for all n below (sqrt(1 + 4 w^2 / t) - 1) / 2. Works on log t.
    """

    def counts(log_t: float) -> Ints:
        last = (np.sqrt(1 + 4 * np.exp(2 * np.log(weights) - log_t)) - 1) / 2
        return np.asarray(np.clip(np.ceil(last), low, high), dtype=np.int64)

    too_low = 2 * float(np.log(weights.min())) - 2 * float(np.log(high)) - 2.0
    enough = 2 * float(np.log(weights.max())) + 1.0
    if counts(too_low).sum() <= budget:
        return counts(too_low)
    for _ in range(64):
        middle = (too_low + enough) / 2
        too_low, enough = (too_low, middle) if counts(middle).sum() <= budget else (middle, enough)
    return counts(enough)


def _gain(weight: float, n: int) -> float:
    return float(weight * weight / (n * (n + 1)))
