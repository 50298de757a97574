"""Three kinds of task with three verifiers and quotas, with a real pretrained model, through the whole pipeline."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.end_to_end.pipeline import PROJECT, cures

pytestmark = pytest.mark.end_to_end
MODEL = Path(os.environ.get("CURES_SMOLLM2", "models/smollm2")).absolute()
NUM = 6  # prompts of a step
SUITE = '{name="mixed",path="data/mixed/heldout.jsonl",limit=8,samples=1,greedy=true}'
SMALL = [
    *("epochs=2", "steps_per_epoch=2", "prior.budget=24", f"curriculum.prompts_per_step={NUM}"),
    *("curriculum.rollouts_per_step=12", "rollout.max_new_tokens=32", f"evaluation.suites=[{SUITE}]"),
    *("evaluation.resamples=200", f"policy.path={MODEL}"),
]


@pytest.mark.skipif(not MODEL.is_dir(), reason="needs `cures model fetch smollm2`, or CURES_SMOLLM2")
def test_three_kinds_of_task_are_judged_by_three_verifiers_within_their_quotas(tmp_path: Path) -> None:
    arguments = [part for setting in SMALL for part in ("--set", setting)]
    outcome = cures("run", "--config", PROJECT / "configs" / "mixed.toml", *arguments, "--json", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    shown = json.loads(Path(outcome.summary["report"]).with_suffix(".json").read_text())
    rows = {row["source"]: row for row in shown["sources"]}
    verifiers = {"sums": "numeric (default)", "choices": "choice", "code": "code"}
    assert {name: row["verifier"] for name, row in rows.items()} == verifiers
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    assert all(row["drawn"] > 0 and row["golds_rejected"] == 0 for row in rows.values())
    steps = shown["steps"]
    assert len(steps) == 4
    drawn = {name: sum(step[f"draw_share/{name}"] for step in steps) * NUM for name in rows}
    assert max(drawn["sums"], drawn["choices"]) <= 0.4 * NUM * len(steps) + 1
    assert drawn["code"] >= 0.25 * NUM * len(steps) - 1
    again = cures("run", "--config", PROJECT / "configs" / "mixed.toml", *arguments, "--json", cwd=tmp_path)
    assert again.summary["run"] == outcome.summary["run"]
