"""A mixture of sources with three verifiers and quotas, through the whole pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.end_to_end.pipeline import PROJECT, cures

pytestmark = pytest.mark.end_to_end

SMALL = [
    *("epochs=2", "steps_per_epoch=5", "policy.hidden_size=32", "policy.layers=1", "policy.heads=2"),
    *("policy.steps=250", "policy.batch=32", "prior.budget=48", "curriculum.prompts_per_step=20"),
    *("curriculum.rollouts_per_step=32", "evaluation.resamples=200"),
]


def test_three_sources_are_judged_by_three_verifiers_within_their_quotas(tmp_path: Path) -> None:
    arguments = [part for setting in SMALL for part in ("--set", setting)]
    outcome = cures("run", "--config", PROJECT / "configs" / "mixed.toml", *arguments, "--json", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    shown = json.loads(Path(outcome.summary["report"]).with_suffix(".json").read_text())
    rows = {row["source"]: row for row in shown["sources"]}
    assert {name: row["verifier"] for name, row in rows.items()} == {
        "plus": "exact (default)",
        "minus": "exact (default)",
        "times": "numeric",
        "max": "numeric",
        "min": "regex",
        "gap": "regex",
    }
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    assert all(row["drawn"] > 0 and row["golds_rejected"] == 0 for row in rows.values())
    steps = shown["steps"]
    assert len(steps) == 10
    for name in ("plus", "minus"):
        assert sum(step[f"draw_share/{name}"] * 20 for step in steps) <= 0.1 * 20 * len(steps) + 1
    assert sum(step["draw_share/gap"] * 20 for step in steps) >= 0.1 * 20 * len(steps) - 1
    assert sum(step["ruled_wrong_share"] for step in steps) > 0
    again = cures("run", "--config", PROJECT / "configs" / "mixed.toml", *arguments, "--json", cwd=tmp_path)
    assert again.summary["run"] == outcome.summary["run"]
