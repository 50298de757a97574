from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cures_core.config.curriculum import ProportionalWeighting, SoftmaxWeighting
from cures_core.curriculum.allocation import allocate, allocate_equally
from cures_core.curriculum.calibration import Calibration
from cures_core.curriculum.sampling import (
    draw,
    effective_sample_size,
    probabilities,
    weight_ratio,
    weights,
)
from cures_core.errors import ConfigError

SIGNAL = np.linspace(0.0, 0.5, 30)
spreads = st.lists(st.floats(0.0, 0.5), min_size=1, max_size=4)


def loss(sigma: np.ndarray, counts: np.ndarray) -> float:
    return float(np.sum(sigma**2 / counts))


@given(spreads, st.integers(1, 3), st.integers(0, 4), st.integers(0, 20))
def test_allocation_is_the_best_of_all(values: list[float], low: int, spare: int, extra: int) -> None:
    sigma, high = np.array(values), low + spare
    budget = min(low * len(values) + extra, high * len(values))
    counts = allocate(sigma, budget, low, high)
    assert counts.sum() == budget
    assert counts.min() >= low
    assert counts.max() <= high
    options = itertools.product(range(low, high + 1), repeat=len(values))
    best = min(loss(np.maximum(sigma, 1e-12), np.array(o)) for o in options if sum(o) == budget)
    assert loss(np.maximum(sigma, 1e-12), counts) == pytest.approx(best, rel=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 400))
def test_allocation_equals_the_plain_greedy(seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    sigma = rng.beta(0.3, 0.3, num) / 2 + 1e-6
    budget = int(rng.integers(2 * num, 33 * num))
    greedy = np.full(num, 2)
    for _ in range(min(budget, 32 * num) - 2 * num):
        gain = np.where(greedy < 32, sigma**2 / (greedy * (greedy + 1)), -1)
        greedy[np.argmax(gain)] += 1
    counts = allocate(sigma, min(budget, 32 * num), 2, 32)
    assert loss(sigma, counts) == pytest.approx(loss(sigma, greedy), rel=1e-9)


def test_more_spread_never_gets_less_and_nothing_gets_none() -> None:
    counts = allocate(np.linspace(0, 0.5, 64), 512, 2, 32)
    assert np.all(np.diff(counts) >= 0)
    assert counts[0] == 2


def test_impossible_budgets_name_the_feasible_range() -> None:
    with pytest.raises(ConfigError, match="use 20 to 80"):
        allocate(np.ones(10), 81, 2, 8)


@given(st.integers(1, 50), st.integers(0, 300))
def test_equal_allocation_is_exact_and_level(num: int, extra: int) -> None:
    counts = allocate_equally(num, num + extra, np.random.default_rng(0))
    assert counts.sum() == num + extra
    assert counts.max() - counts.min() <= 1


def test_temperature_goes_from_the_best_few_to_uniform() -> None:
    flat = probabilities(weights(SIGNAL, SoftmaxWeighting(temperature=1e6)), 0.0)
    sharp = probabilities(weights(SIGNAL, SoftmaxWeighting(temperature=1e-3)), 0.0)
    assert effective_sample_size(flat) == pytest.approx(30, rel=1e-6)
    assert weight_ratio(flat) == pytest.approx(1.0, rel=1e-5)
    assert list(draw(sharp, 5, np.random.default_rng(0))) == [25, 26, 27, 28, 29]
    assert weight_ratio(sharp) > 1e80


def test_probabilities_are_the_stated_ones() -> None:
    weighted = probabilities(weights(SIGNAL, ProportionalWeighting(power=2.0)), 0.0)
    np.testing.assert_allclose(weighted[10:], SIGNAL[10:] ** 2 / np.sum(np.maximum(SIGNAL, 1e-6) ** 2))
    mixed = probabilities(weights(SIGNAL, ProportionalWeighting(power=2.0)), 0.25)
    soft = probabilities(weights(SIGNAL, SoftmaxWeighting(temperature=0.1)), 0.0)
    np.testing.assert_allclose(soft, np.exp(SIGNAL / 0.1) / np.exp(SIGNAL / 0.1).sum())
    np.testing.assert_allclose(mixed, 0.75 * weighted + 0.25 / 30, rtol=1e-9)
    assert mixed.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(probabilities(weights(SIGNAL, ProportionalWeighting()), 1.0), 1 / 30)


def test_draws_follow_plackett_luce() -> None:
    p = np.array([0.5, 0.25, 0.15, 0.1])
    expected = {}
    for pair in itertools.permutations(range(4), 2):
        key = tuple(sorted(pair))
        expected[key] = expected.get(key, 0.0) + p[pair[0]] * p[pair[1]] / (1 - p[pair[0]])
    rng, seen = np.random.default_rng(0), dict.fromkeys(expected, 0)
    for _ in range(20_000):
        seen[tuple(draw(p, 2, rng).tolist())] += 1
    observed = [seen[k] for k in expected]
    assert stats.chisquare(observed, [20_000 * v for v in expected.values()]).pvalue > 0.01


def test_a_draw_of_everything_is_everything() -> None:
    assert list(draw(np.full(4, 0.25), 9, np.random.default_rng(0))) == [0, 1, 2, 3]


def test_calibration_is_what_a_plain_computation_says() -> None:
    rng = np.random.default_rng(3)
    p, n = rng.random(200), np.full(200, 8.0)
    s = rng.binomial(8, p).astype(float)
    calibration = Calibration()
    for part in np.array_split(np.arange(200), 7):
        calibration.add(p[part], s[part], n[part] - s[part])
    calibration.add(np.array([0.5]), np.zeros(1), np.zeros(1))  # unknown verdicts only: nothing to compare
    figures = calibration.figures()
    assert figures["mae"] == pytest.approx(np.abs(p - s / n).mean())
    assert figures["pearson"] == pytest.approx(np.corrcoef(p, s / n)[0, 1])
    outcomes = np.concatenate([np.repeat([1.0, 0.0], [int(k), 8 - int(k)]) for k in s])
    assert figures["brier"] == pytest.approx(np.mean((np.repeat(p, 8) - outcomes) ** 2))
    rows = calibration.reliability()
    assert sum(row["rollouts"] for row in rows) == 1600
    assert all(abs(row["predicted"] - row["observed"]) < 0.1 for row in rows)
    copy = Calibration()
    copy.load_state_dict(calibration.state_dict())
    assert copy.figures() == figures
    assert Calibration().figures() == {}
