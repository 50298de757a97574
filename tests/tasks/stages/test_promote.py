"""Promotion by a run's gate: what a run that was killed while it moved the pointer says when it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cures_core.config.evaluation import EvaluationConfig, PromotionConfig
from tasks.registry.history import by_a_person, move
from tasks.stages.promote import decide_and_move
from tasks.storage import LocalStore


def test_a_run_that_had_moved_the_pointer_names_whose_place_it_took(tmp_path: Path) -> None:
    """As one does that nobody has killed: it was "itself"."""
    store, gate = LocalStore(tmp_path), PromotionConfig(model="m", suites=("exam",))
    told = []
    for run in ("first", "second"):
        entry = {"run": run, "state": "s/1", "policy": "p/1", "evaluation": f"evaluate_checkpoint/{run}"}
        assert move(by_a_person(store), "m", store.get("models/m.json"), {**entry, "reasons": ["gain"]}) is not None
        nobody: Any = None
        again = decide_and_move(store, nobody, gate, EvaluationConfig(), entry, nobody, nobody)
        told.append((again.promoted, again.reasons, again.incumbent))
    assert told == [(True, ("gain",), "the base policy"), (True, ("gain",), "first")]
