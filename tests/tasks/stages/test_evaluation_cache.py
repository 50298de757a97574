"""Completions of a suite that were made before: when they serve again, and when not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cures_core.config.evaluation import EvaluatedSuite
from cures_core.errors import CorruptArtifact
from cures_core.jobs.kept import keep, kept
from tasks.stages.evaluation_cache import recall, remember, rows_key
from tasks.storage.local import LocalStore

INPUTS: dict[str, Any] = {
    "suites": {"exam": "d1", "quiz": "d2"},
    "rollout": {"type": "hf", "max_new_tokens": 8},
    "reward": {"type": "exact"},
    "device": {"type": "cpu"},
    "policy": "p",
    "weights": "",
    "lora": None,
}
SUITE = EvaluatedSuite(name="exam", path="exam.jsonl", samples=4)


def key(inputs: dict[str, Any] | None = None, seed: int = 1, **changes: Any) -> str:
    return rows_key(
        EvaluatedSuite.model_validate({**SUITE.model_dump(), **changes}), {**INPUTS, **(inputs or {})}, seed
    )


@pytest.mark.parametrize(
    "other",
    [
        lambda: key({"suites": {"exam": "d3", "quiz": "d2"}}),
        lambda: key({"policy": "q"}),
        lambda: key({"weights": "w"}),
        lambda: key({"lora": {"rank": 4}}),
        lambda: key({"rollout": {"type": "hf", "max_new_tokens": 9}}),
        lambda: key({"reward": {"type": "numeric"}}),
        lambda: key({"device": {"type": "cuda"}}),
        lambda: key(seed=2),
        lambda: key(samples=5),
        lambda: key(temperature=0.5),
        lambda: key(greedy=True),
        lambda: key(limit=3),
        lambda: key(max_new_tokens=3),
        lambda: key(reward={"type": "numeric"}),
        lambda: key(prompt_format={"stop": ["x"]}),
    ],
)
def test_whatever_the_completions_depend_on_is_in_the_key(other: Any) -> None:
    assert other() != key()


def test_neighbours_places_and_intervals_are_not_in_the_key() -> None:
    assert key({"suites": {"exam": "d1"}, "evaluation": {"resamples": 1}}, path="moved.jsonl") == key()


def test_what_was_kept_comes_back_and_damage_is_set_aside(tmp_path: Path) -> None:
    store, place = LocalStore(tmp_path / "store"), tmp_path / "rows" / "exam.json"
    assert not recall(store, "k", place)
    assert not place.exists()
    keep(tmp_path / "made.json", {"sampled": [1]})
    remember(store, "k", tmp_path / "made.json")
    assert recall(store, "k", place)
    assert kept(place) == {"sampled": [1]}
    data = store.get("evaluations/k")
    assert data is not None
    damaged = data.replace(b"[1]", b"[2]")
    store.put("evaluations/k", damaged)
    assert not recall(store, "k", tmp_path / "other.json")
    assert store.get("evaluations/k") == damaged  # whoever reads it changes nothing
    remember(store, "k", tmp_path / "made.json")
    assert store.get("evaluations/k") == data
    assert store.get("damaged/evaluations/k-1") == damaged


def test_rows_that_were_changed_before_they_are_remembered_are_not(tmp_path: Path) -> None:
    store, path = LocalStore(tmp_path / "store"), tmp_path / "made.json"
    keep(path, {"sampled": [1]})
    path.write_bytes(path.read_bytes().replace(b"[1]", b"[2]"))
    with pytest.raises(CorruptArtifact, match=r"made\.json"):
        remember(store, "k", path)
    assert store.get("evaluations/k") is None
