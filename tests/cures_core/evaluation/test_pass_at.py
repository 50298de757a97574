"""pass@j against its definition; stable where binomial coefficients are not."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.evaluation.pass_at import pass_at, pass_ladder


@pytest.mark.parametrize(("correct", "samples"), [(0, 5), (1, 5), (3, 5), (5, 5), (1, 1), (0, 1), (4, 7)])
def test_pass_at_j_is_the_share_of_subsets_with_a_correct_completion(correct, samples):
    completions = [True] * correct + [False] * (samples - correct)
    for j in range(1, samples + 1):
        subsets = list(combinations(completions, j))
        expected = sum(any(subset) for subset in subsets) / len(subsets)
        assert pass_at(j, [correct], samples)[0] == pytest.approx(expected)


def test_pass_at_1_is_avg_at_k_and_items_may_have_different_numbers_of_samples():
    correct, samples = [0, 1, 3, 4], [4, 2, 8, 4]
    np.testing.assert_allclose(pass_at(1, correct, samples), [0, 0.5, 0.375, 1])


def test_pass_at_j_is_stable_for_many_samples():
    # C(20000, 10000) has 6,000 digits; 1 - C(n - 1, j) / C(n, j) is j / n.
    assert pass_at(10_000, [1], 20_000)[0] == pytest.approx(0.5)
    assert pass_at(10_000, [10_001], 20_000)[0] == 1.0


@given(st.integers(1, 40), st.data())
def test_pass_at_j_grows_with_j_and_with_c(samples, data):
    correct = np.arange(samples + 1)
    j = data.draw(st.integers(1, samples))
    values = pass_at(j, correct, samples)
    assert np.all(np.diff(values) >= 0)
    assert (values[0], values[-1]) == (0.0, 1.0)
    if j > 1:
        assert np.all(values >= pass_at(j - 1, correct, samples))


def test_pass_at_j_is_unbiased():
    rng, rate = np.random.default_rng(0), 0.2
    estimate = pass_at(4, rng.binomial(8, rate, 200_000), 8).mean()
    assert estimate == pytest.approx(1 - (1 - rate) ** 4, abs=0.003)


def test_ladder_doubles_up_to_k():
    assert [pass_ladder(k) for k in (1, 2, 3, 8, 12)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8], [1, 2, 4, 8, 12]]


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="pass@5 needs at least 5 samples of every item, there are 4"):
        pass_at(5, [1, 1], [8, 4])
    for correct, samples in ((-1, 4), (5, 4), (0, 0)):
        with pytest.raises(ValueError, match="0 <= correct <= samples"):
            pass_at(0, [correct], [samples])
