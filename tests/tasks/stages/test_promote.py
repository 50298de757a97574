"""Promotion by a run's gate: what a run that was killed while it moved the pointer says when it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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


def test_every_reason_names_what_was_compared_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("read_evaluation", "_trained_on"):
        monkeypatch.setattr(f"tasks.stages.promote.{name}", lambda *_: {})
    store, gate = LocalStore(tmp_path), PromotionConfig(model="m", suites=("exam",))
    nobody: Any = None

    def asked(run: str) -> tuple[str, ...]:
        entry = {"run": run, "state": "s/1", "policy": "p/1", "evaluation": f"evaluate_checkpoint/{run}"}
        swap = by_a_person(store)
        figures = decide_and_move(store, swap, gate, EvaluationConfig(), entry, nobody, nobody, override=True)
        return figures.reasons

    assert asked("first")[0].startswith("against the base policy: promotion.suites names exam")
    assert asked("second") == ("against version 1 of m (run first): its scores are not in this store",)
    assert asked("third") == ("against version 2 of m (run second): its scores are not in this store",)
