"""How often the gate opens: by chance rarely (A/A), for a real gain often."""

from __future__ import annotations

import numpy as np
import pytest

from cures_core.evaluation.paired import compare
from cures_core.evaluation.promotion import decide
from tests.cures_core.evaluation.test_promotion import CFG, GATE, evaluated


def promoted_share(n: int, k: int, comparisons: int, lift: float = 0.0, wobble: float = 0.0) -> float:
    """Share of comparisons that promote; the incumbent's success rates are U-shaped, the candidate's higher by `lift`.

    `wobble` moves single items up or down without moving their mean.
    """
    rng = np.random.default_rng([n, k, round(1000 * (1 + lift)), round(1000 * wobble)])
    promoted = 0
    for _ in range(comparisons):
        rates = rng.beta(0.3, 0.3, n)
        room = np.minimum(np.minimum(rates, 1 - rates), wobble)
        moved = np.clip(rates + lift + room * rng.choice([-1, 1], n), 0, 1)
        candidate, incumbent = rng.binomial(k, moved).tolist(), rng.binomial(k, rates).tolist()
        pair = compare(evaluated(candidate, k), evaluated(incumbent, k), CFG)
        promoted += decide(GATE, {"exam": pair}).promoted
    return promoted / comparisons


@pytest.mark.parametrize(("n", "k"), [(2, 8), (30, 16), (200, 4)])
def test_a_policy_is_seldom_promoted_over_itself(n, k):
    assert promoted_share(n, k, 1000) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 5, 10, 30, 200, 500])
@pytest.mark.parametrize("k", [1, 4, 8])
@pytest.mark.parametrize("wobble", [0.0, 0.3])
def test_a_policy_is_seldom_promoted_over_its_equal(n, k, wobble):
    assert promoted_share(n, k, 1000, wobble=wobble) <= 0.05


def test_a_better_policy_is_mostly_promoted_and_more_samples_help():
    power = {k: promoted_share(300, k, 150, lift=0.04) for k in (1, 8)}
    assert power[8] >= 0.9
    assert power[1] < power[8]


def test_small_suites_gain_power_from_samples():
    assert promoted_share(30, 16, 100, lift=0.06) >= 0.5


def test_a_worse_policy_is_never_promoted():
    assert promoted_share(300, 4, 100, lift=-0.05) == 0
