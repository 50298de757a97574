"""Intervals hold the truth as often as they say: by simulation for the bootstrap, exactly for Wilson's."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from cures_core.evaluation.intervals import Interval, bootstrap, wilson
from cures_core.evaluation.pass_at import pass_at

U_SHAPED = (0.3, 0.3)
HARD = (0.05, 3.0)

counts_of_eight = partial(bootstrap, confidence=0.95, resamples=200, seed=0, halves=(0, 8))


def coverage(n: int, k: int, beta: tuple[float, float], comparisons: int, resamples: int) -> float:
    """Share of simulated suites of `n` items, success rates from a beta distribution, whose interval holds its mean."""
    rng = np.random.default_rng([n, k])
    truth = k * beta[0] / sum(beta)
    held = 0
    for seed in range(comparisons):
        correct = rng.binomial(k, rng.beta(*beta, n))
        low, high = bootstrap(correct, 0.95, resamples, seed, (0, k))
        held += low <= truth <= high
    return held / comparisons


@pytest.mark.parametrize("n", [50, 400])
@pytest.mark.parametrize("k", [4, 8])
def test_bootstrap_covers_a_u_shaped_suite(n, k):
    assert 0.93 <= coverage(n, k, U_SHAPED, 1000, 1000) <= 0.97


@pytest.mark.parametrize("n", [30, 400])
def test_bootstrap_does_not_fall_short_where_nearly_all_items_fail(n):
    assert coverage(n, 8, HARD, 500, 500) >= 0.94


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 400])
@pytest.mark.parametrize("k", [2, 4, 8, 16])
@pytest.mark.parametrize("beta", [(0.1, 0.1), U_SHAPED, (0.5, 0.5), (0.2, 0.6)])
def test_bootstrap_covers_many_u_shaped_suites(n, k, beta):
    assert 0.93 <= coverage(n, k, beta, 4000, 1000) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 30, 50, 400])
@pytest.mark.parametrize("k", [4, 8])
@pytest.mark.parametrize("beta", [(0.1, 2.0), HARD, (3.0, 0.05), (2.0, 0.1)])
def test_bootstrap_never_falls_short_in_lopsided_suites(n, k, beta):
    assert coverage(n, k, beta, 4000, 1000) >= 0.93


def test_resampling_completions_too_would_count_their_noise_twice():
    rng, n, k = np.random.default_rng(1), 400, 4
    rates = rng.beta(*U_SHAPED, (1000, n))
    spread = (rng.binomial(k, rates) / k).mean(axis=1).std()
    correct = rng.binomial(k, rates[0])
    items = correct[rng.integers(0, n, (1000, n))]
    one_level = (items / k).mean(axis=1).std()
    two_level = (rng.binomial(k, items / k) / k).mean(axis=1).std()
    assert one_level == pytest.approx(spread, rel=0.06)
    assert two_level > 1.04 * spread


def test_bootstrap_of_pass_at_k_covers():
    rng, held = np.random.default_rng(3), 0
    population = rng.beta(*U_SHAPED, 1_000_000)
    truth = float(1 - np.mean((1 - population) ** 4))
    for seed in range(500):
        values = pass_at(4, rng.binomial(8, rng.beta(*U_SHAPED, 100)), 8)
        low, high = bootstrap(values, 0.95, 500, seed, (0, 1))
        held += low <= truth <= high
    assert 0.925 <= held / 500 <= 0.975


@pytest.mark.parametrize("n", [50, 400])
@pytest.mark.parametrize("rate", [0.05, 0.25, 0.5, 0.9])
def test_wilson_covers_exactly_computed(n, rate):
    # With one completion an item the number of correct ones is binomial, whatever the items' own rates are.
    held = [low <= rate <= high for low, high in (wilson(c, n, 0.95) for c in range(n + 1))]
    assert 0.93 <= binom.pmf(range(n + 1), n, rate)[held].sum() <= 0.98


def test_wilson_known_values():
    assert wilson(0, 10, 0.95) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10, 0.95) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(5, 10, 0.95) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 3, 0.95).low == 0.0
    assert wilson(3, 3, 0.95).high == 1.0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=60), st.randoms())
def test_bootstrap_holds_the_mean_stays_in_range_and_ignores_order(values, shuffler):
    interval = counts_of_eight(values)
    assert 0 <= interval.low <= np.mean(values) <= interval.high <= 8
    shuffler.shuffle(values)
    assert counts_of_eight(values) == interval


def test_equal_items_leave_doubt_that_shrinks_with_their_number():
    assert counts_of_eight([0] * 20).low == 0
    widths = [counts_of_eight([0] * n).high for n in (1, 5, 20, 100, 1000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] == 8
    assert 0 < widths[-1] < 0.1


def test_each_argument_of_the_bootstrap_matters():
    values = [0, 1, 3, 8, 8, 2, 0, 0, 5, 8]
    base = counts_of_eight(values)
    assert counts_of_eight(values) == base
    assert counts_of_eight(values, seed=1) != base
    assert counts_of_eight(values, resamples=300) != base
    assert counts_of_eight(values, halves=(0, 80)).high > base.high
    assert _length(counts_of_eight(values, confidence=0.8)) < _length(base)


def _length(interval: Interval) -> float:
    return interval.high - interval.low
