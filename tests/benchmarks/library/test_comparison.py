"""The comparison of arms inside TRL, in the scratchpad world."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.curriculum.base_policies import warm_started
from benchmarks.curriculum.worlds.scratchpad import LESSON, POLICY
from benchmarks.library.arm import Arm, run
from benchmarks.library.comparison import paired, table


def test_arms_of_one_seed_start_alike_and_are_compared_by_seed(tmp_path: Path) -> None:
    tiny = POLICY.model_copy(update={"steps": 8, "hidden_size": 16, "layers": 1, "heads": 2})
    sizes = {
        "policy": str(warm_started("scratchpad", tiny, LESSON, tmp_path)),
        "steps": 2,
        "prompts": 4,
        "group": 2,
        "evaluations": 2,
        "held_out": 12,
    }
    rows = [run(Arm(method=method, seed=1, **sizes)) for method in ("uniform", "curriculum")]  # type: ignore[arg-type]
    assert rows[0]["curve"][0] == rows[1]["curve"][0]
    assert [point["rollouts"] for point in rows[1]["curve"]] == [0, 8, 16]
    assert rows[1]["counts"]["asked"] == rows[0]["rollouts"] == 16
    assert all(row["tokens"] > 0 for row in rows)
    result = {"arms": rows, "paired": paired(rows)}
    assert len(table(json.loads(json.dumps(result)))) == 1 + 3 + 2
