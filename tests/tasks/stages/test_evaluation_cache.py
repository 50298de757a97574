"""Completions of a suite that were made before: kept and found again. When they serve again: `test_keys.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from cures_core.errors import CorruptArtifact
from cures_core.jobs.kept import keep, kept
from tasks.stages.evaluation_cache import fetch_rows, keep_rows
from tasks.storage.local import LocalStore


def test_what_was_kept_comes_back_and_damage_is_set_aside(tmp_path: Path) -> None:
    store, place = LocalStore(tmp_path / "store"), tmp_path / "rows" / "exam.json"
    assert not fetch_rows(store, "k", place)
    assert not place.exists()
    keep(tmp_path / "made.json", {"sampled": [1]})
    keep_rows(store, "k", tmp_path / "made.json")
    assert fetch_rows(store, "k", place)
    assert kept(place) == {"sampled": [1]}
    data = store.get("evaluations/k")
    assert data is not None
    damaged = data.replace(b"[1]", b"[2]")
    store.put("evaluations/k", damaged)
    assert not fetch_rows(store, "k", tmp_path / "other.json")
    assert store.get("evaluations/k") == damaged  # whoever reads it changes nothing
    keep_rows(store, "k", tmp_path / "made.json")
    assert store.get("evaluations/k") == data
    assert store.get("damaged/evaluations/k-1") == damaged


def test_rows_that_were_changed_before_they_are_remembered_are_not(tmp_path: Path) -> None:
    store, path = LocalStore(tmp_path / "store"), tmp_path / "made.json"
    keep(path, {"sampled": [1]})
    path.write_bytes(path.read_bytes().replace(b"[1]", b"[2]"))
    with pytest.raises(CorruptArtifact, match=r"made\.json"):
        keep_rows(store, "k", path)
    assert store.get("evaluations/k") is None
