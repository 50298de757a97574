from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.curriculum.analysis import BEST, analyse, area, best_of, cost_to, curve
from benchmarks.curriculum.kept import arm_name, keep, load
from benchmarks.curriculum.report import compared, page, table
from benchmarks.curriculum.worlds.digits import SHARES, make_pool
from benchmarks.curriculum.worlds.world import Sizes
from cures_core.errors import ConfigError


def arm(method: str, seed: int, slope: float, points: int = 41, base: int = 0) -> dict[str, Any]:
    """A straight curve from 0.2, capped at 0.9."""
    rows = [
        {"rollouts": 100.0 * i, "tokens": 300.0 * i, "seconds": 2.0 * i, "heldout_sampled": min(0.9, 0.2 + slope * i)}
        for i in range(points)
    ]
    return {
        "arm": {"world": "digits", "pool": "waste", "method": method, "base": base, "seed": seed, "budget": 4000},
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


def test_the_interval_covers_base_policies_and_seeds_together() -> None:
    """Ten seeds of one base policy say nothing of others: where base policies differ the interval is wide."""
    alike = [arm(m, s, slope, base=b) for b in range(3) for s in range(4) for m, slope in (("a", 0.01), ("b", 0.02))]
    found = analyse(alike, "a")[1]
    assert (found.bases, found.seeds) == (3, 12)
    assert found.to_90["rollouts"].low == pytest.approx(found.to_90["rollouts"].high)
    by_base = [
        arm(m, s, slope, base=b)
        for b, faster in enumerate((0.01, 0.02, 0.05))
        for s in range(4)
        for m, slope in (("a", 0.01), ("b", faster))
    ]
    ratio = analyse(by_base, "a")[1].to_90["rollouts"]
    assert ratio.low == pytest.approx(ratio.smallest) == pytest.approx(1.0)
    assert ratio.high == pytest.approx(ratio.largest)
    assert ratio.low < ratio.value < ratio.high


def test_only_arms_of_the_same_base_policy_and_seed_are_compared() -> None:
    arms = [arm("a", 0, 0.01), arm("a", 1, 0.04), arm("b", 0, 0.02)]
    assert analyse(arms, "a")[1].to_90["rollouts"].reached == 1
    with pytest.raises(ConfigError, match="no arm of the same base policy and seed"):
        analyse([arm("a", 0, 0.01), arm("b", 1, 0.02)], "a")


def test_the_area_is_the_mean_score_over_what_is_spent() -> None:
    straight = arm("m", 0, 0.01, points=5)
    assert area(straight, "heldout_sampled", 400) == pytest.approx(0.22)
    assert area(straight, "heldout_sampled", 200) == pytest.approx(0.21)
    assert area(straight, "heldout_sampled", 250) == pytest.approx(0.2125)


def test_the_best_baseline_is_the_one_that_ends_highest() -> None:
    arms = [arm("uniform", 0, 0.005), arm("raft", 0, 0.008), arm("cures", 0, 0.01)]
    assert best_of(arms, ("uniform", "raft", "dapo"), "heldout_sampled") == "raft"
    assert compared(arms, BEST)["baseline"] == "raft"
    with pytest.raises(ConfigError, match="no arm of a baseline: dapo"):
        best_of(arms, ("dapo",), "heldout_sampled")


def test_a_table_holds_every_account_and_every_end_that_all_arms_have() -> None:
    arms = [arm("uniform", 0, 0.01), arm("cures", 0, 0.02)]
    for one in arms:
        for point in one["points"]:
            point |= {"updates": point["rollouts"] / 10, "avg_at_1": 0.5, "pass_at_8": 0.7, "entropy": 0.3}
    lines = table(compared(arms, "uniform"))
    assert "to 90 %: updates" in lines[2]
    assert lines[5].count("[") == 1  # of the final score; one arm has no interval
    assert "processor" not in lines[2]
    assert [line.count("|") for line in lines[2:]] == [lines[2].count("|")] * 4
    assert "| 0.700 | 0.300 |" in lines[5]
    shown = page(arms, "heldout_sampled")
    assert shown.count("<svg") == 4
    assert "pass@8" in shown


def test_results_are_kept_with_what_they_were_made_by(tmp_path: Path) -> None:
    one, two = arm("uniform", 0, 0.01), arm("cures", 0, 0.02)
    keep("digits", [one], {"commit": "a"}, tmp_path)
    keep("digits", [one, two], {"commit": "b"}, tmp_path)
    found = load("digits", tmp_path)
    assert {name: row["made"]["commit"] for name, row in found.items()} == {
        "waste-uniform-0-0-4000": "a",  # the same figures: nobody has run it again
        "waste-cures-0-0-4000": "b",
    }
    assert arm_name(two) == "waste-cures-0-0-4000"
    assert compared(list(found.values()), "uniform") == compared([two, one][::-1][::-1], "uniform")
    assert load("scratchpad", tmp_path) == {}


@pytest.mark.parametrize("name", list(SHARES))
def test_pools_keep_suites_apart_and_differ_by_seed(name: str) -> None:
    sizes = Sizes(train=200, heldout=80, frontier=40)
    pool = make_pool(name, 5, sizes)
    assert (len(pool.train), len(pool.heldout), len(pool.frontier)) == (200, 80, 40)
    problems = [set(part.column("problem")) for part in (pool.train, pool.heldout)]
    assert not problems[0] & problems[1]
    assert make_pool(name, 6, sizes).train.digest != pool.train.digest
    assert make_pool(name, 5, sizes).train.digest == pool.train.digest
