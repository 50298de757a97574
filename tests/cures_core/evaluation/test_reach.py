"""What it takes to reach a score, and the mean of a curve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.evaluation.reach import cost_to, mean_until

CURVES = st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 1, width=32)), min_size=1, max_size=6).map(
    lambda points: sorted(dict(points).items())
)


def test_a_score_between_two_checkpoints_is_reached_between_them() -> None:
    cost, score = [0, 100, 300], [0.2, 0.4, 0.3]
    assert cost_to(cost, score, 0.1) == 0
    assert cost_to(cost, score, 0.25) == pytest.approx(25)
    assert cost_to(cost, score, 0.4) == pytest.approx(100)
    assert cost_to(cost, score, 0.41) is None


@given(CURVES, st.floats(0, 1, width=32))
def test_the_curve_has_the_score_where_it_is_first_reached(curve: list[tuple[int, float]], target: float) -> None:
    cost, score = zip(*curve, strict=True)
    found = cost_to(cost, score, target)
    assert (found is None) is (max(score) < target)
    if found is not None and score[0] < target:
        assert np.interp(found, cost, score) == pytest.approx(target, abs=1e-6)


@given(CURVES, st.floats(0, 2000))
def test_the_mean_is_that_of_many_points_of_the_curve(curve: list[tuple[int, float]], spent: float) -> None:
    cost, score = zip(*curve, strict=True)
    last = max(spent, cost[0])
    at = np.unique([*np.linspace(cost[0], last, 5), *(x for x in cost if x < last)])
    expected = np.trapezoid(np.interp(at, cost, score), at) / (last - cost[0]) if last > cost[0] else score[0]
    assert mean_until(cost, score, spent) == pytest.approx(expected, abs=1e-6)
