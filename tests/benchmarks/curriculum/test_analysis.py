from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.curriculum.analysis import analyse, cost_to, curve
from benchmarks.curriculum.methods import METHODS, settings
from benchmarks.curriculum.pools import POOLS, make_pool


def arm(method: str, seed: int, slope: float, points: int = 41) -> dict[str, Any]:
    """A straight curve from 0.2, capped at 0.9."""
    rows = [
        {"rollouts": 100.0 * i, "tokens": 300.0 * i, "seconds": 2.0 * i, "heldout_sampled": min(0.9, 0.2 + slope * i)}
        for i in range(points)
    ]
    return {
        "arm": {"method": method, "seed": seed},
        "points": rows,
        "informative_share": 0.25,
        "seconds": 80.0,
        "curriculum_seconds": 2.0,
        "calibration": {"mae": 0.1},
    }


def test_a_crossing_is_interpolated() -> None:
    cost, reached = cost_to(arm("m", 0, 0.01), 0.255, "rollouts", "heldout_sampled")
    assert reached
    assert cost == pytest.approx(550.0)
    assert cost_to(arm("m", 0, 0.01), 0.95, "tokens", "heldout_sampled") == (12_000.0, False)
    assert cost_to(arm("m", 0, 0.01), 0.1, "seconds", "heldout_sampled") == (0.0, True)


def test_smoothing_keeps_the_ends() -> None:
    wild = arm("m", 0, 0.0)
    wild["points"][1]["heldout_sampled"] = 0.5
    y = curve(wild, "heldout_sampled")
    assert y[0] == 0.2
    assert y[1] == pytest.approx(0.3)
    assert len(y) == 41


def test_a_method_twice_as_fast_has_the_ratio_two_in_every_counter() -> None:
    arms = [arm("base", s, 0.01) for s in range(3)] + [arm("fast", s, 0.02) for s in range(3)]
    base, fast = analyse(arms, "base")
    assert base.to_90["rollouts"].value == pytest.approx(1.0)
    for counter in ("rollouts", "tokens", "seconds"):
        ratio = fast.to_90[counter]
        assert ratio.value == pytest.approx(2.0, rel=0.02)
        assert ratio.low == pytest.approx(ratio.high) == pytest.approx(ratio.smallest)
        assert (ratio.reached, ratio.baseline_reached) == (3, 3)


def test_an_arm_that_never_arrives_counts_with_its_whole_budget() -> None:
    base, slow = analyse([arm("base", 0, 0.01), arm("slow", 0, 0.001)], "base")
    assert (base.curriculum_share, base.frontier) == (pytest.approx(0.025), None)
    assert slow.to_final["rollouts"].reached == 0
    assert slow.to_final["rollouts"].value == pytest.approx(
        cost_to(arm("b", 0, 0.01), 0.6, "rollouts", "heldout_sampled")[0] / 4000
    )
    assert base.oracle_share is None


def test_the_interval_shows_the_spread_over_seeds() -> None:
    arms = [arm("base", s, 0.01) for s in range(5)] + [arm("m", s, 0.01 + 0.005 * s) for s in range(5)]
    ratio = analyse(arms, "base")[1].to_90["rollouts"]
    assert ratio.smallest < ratio.low < ratio.value < ratio.high < ratio.largest


def test_the_oracle_is_the_ceiling() -> None:
    arms = [arm("base", 0, 0.005), arm("m", 0, 0.0075), arm("oracle", 0, 0.01)]
    shares = [row.oracle_share for row in analyse(arms, "base")]
    assert shares == pytest.approx([0.0, 0.5, 1.0])


@pytest.mark.parametrize("name", POOLS)
def test_pools_keep_suites_apart_and_differ_by_seed(name: Any) -> None:
    pool = make_pool(name, 5, num=200, num_heldout=80, num_frontier=40)
    assert (len(pool.train), len(pool.heldout), len(pool.frontier)) == (200, 80, 40)
    problems = [set(part.column("problem")) for part in (pool.train, pool.heldout)]
    assert not problems[0] & problems[1]
    assert make_pool(name, 6, num=200, num_heldout=80, num_frontier=40).train.digest != pool.train.digest
    assert make_pool(name, 5, num=200, num_heldout=80, num_frontier=40).train.digest == pool.train.digest


def test_every_method_has_valid_settings() -> None:
    from pydantic import TypeAdapter

    from benchmarks.curriculum.arena import Arm

    for method in METHODS:
        curriculum, training = settings(method)
        fields = {
            "pool": "waste",
            "seed": 0,
            "budget": 10,
            "policy": ".",
            "curriculum": curriculum,
            "training": training,
        }
        made = TypeAdapter(Arm).validate_python({"method": method, **fields})
        assert made.curriculum.type == curriculum["type"]
        assert np.isfinite(made.training.learning_rate)
