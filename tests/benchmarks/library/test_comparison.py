"""The comparison of arms inside TRL, in the scratchpad world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.curriculum.base_policies import warm_started
from benchmarks.curriculum.worlds.scratchpad import LESSON, POLICY
from benchmarks.library.arm import CURRICULUM, UNIFORM, Arm, run
from benchmarks.library.comparison import table


def test_arms_of_one_seed_start_alike_and_are_compared_in_all_accounts(tmp_path: Path) -> None:
    tiny = POLICY.model_copy(update={"steps": 8, "hidden_size": 16, "layers": 1, "heads": 2})
    sizes: dict[str, Any] = {
        "pool": "waste",
        "base": 0,
        "policy": str(warm_started("scratchpad", tiny, LESSON, tmp_path)),
        "budget": 16,
        "learning_rate": 5e-4,
        "prompts": 4,
        "group": 2,
        "evaluations": 2,
        "train": 40,
        "frontier": 6,
        "samples": 2,
    }
    arms = [run(Arm(method=method, seed=1, **sizes)) for method in (UNIFORM, CURRICULUM)]
    uniform, curriculum = (arm["points"] for arm in arms)
    paid = ("tokens", "seconds", "processor_seconds")
    assert {**uniform[0], "seconds": 0} == {**curriculum[0], "seconds": 0}
    for points in (uniform, curriculum):
        assert [(point["rollouts"], point["updates"]) for point in points] == [(0, 0), (8, 1), (16, 2)]
        assert all(points[0][name] == 0 for name in paid)
        assert all(points[0][name] < points[1][name] < points[2][name] for name in paid)
        assert {"avg_at_1", "greedy", "entropy", "pass_at_2"} <= points[-1].keys()
    assert arms[1]["counts"]["asked"] == 16
    assert arms[0]["curriculum_seconds"] == 0 < arms[1]["curriculum_seconds"] < arms[1]["processor_seconds"]
    lines = table(json.loads(json.dumps(arms)))
    assert sum(line.startswith(("| trl |", "| trl-cures |")) for line in lines) == 2
    assert "Asking and telling took" in lines[-1]
