"""A change that alters results is seen, and has to say so."""

from __future__ import annotations

from typing import Any

import pytest

from tests.recorded.recording import assert_as_recorded, differences, recorded
from tests.recorded.run import CONFIG, curve


def test_results_are_those_that_were_recorded() -> None:
    assert_as_recorded("run", curve())


def test_one_per_cent_of_the_learning_rate_is_seen() -> None:
    """What does not change what is drawn and counted: the tolerance is no blindness."""
    training = {**CONFIG["training"], "learning_rate": 1.01 * CONFIG["training"]["learning_rate"]}
    places = [line.partition(":")[0] for line in differences(curve({**CONFIG, "training": training}), recorded("run"))]
    assert {"steps.7.entropy", "steps.7.grad_norm"} <= set(places)


def test_the_recorded_run_learns_and_meets_what_runs_meet() -> None:
    steps = recorded("run")["steps"]
    assert sum(row["reward_mean"] for row in steps[4:]) > sum(row["reward_mean"] for row in steps[:4])
    assert all(row["updated"] for row in steps)
    assert any(row["unknown_share"] for row in steps)
    assert any(row["step_rollouts"] > row["groups"] for row in steps)  # a second round


@pytest.mark.parametrize(
    ("now", "then", "seen"),
    [
        (0.5, 0.50004, []),
        (0.5, 0.501, ["x: 0.5, recorded 0.501"]),
        (7, 8, ["x: 7, recorded 8"]),
        (700000.0, 700001.0, ["x: 700000.0, recorded 700001.0"]),  # counts are exact, also as floats
        (0.000004, 0.000001, []),
        (0.0, 0.25, ["x: 0.0, recorded 0.25"]),
        ("a", "b", ['x: "a", recorded "b"']),
        (None, 0.5, ["x: null, recorded 0.5"]),
        ([1, 2], [1, 2, 3], ["x: [1, 2], recorded [1, 2, 3]"]),
        ([{"y": 1}], [{"y": 2}], ["x.0.y: 1, recorded 2"]),
        ({"y": 1}, {"z": 1}, ["x.y: 1, recorded null", "x.z: null, recorded 1"]),
    ],
)
def test_counts_are_compared_exactly_and_figures_within_the_tolerance(now: Any, then: Any, seen: list[str]) -> None:
    assert differences({"x": now}, {"x": then}) == seen
