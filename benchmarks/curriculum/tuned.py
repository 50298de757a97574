"""Settings that were found best for a method in a world, as `python -m benchmarks tune` has kept them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter

from cures_core.config.base import Strict
from cures_core.files import write_atomic

TUNED = Path(__file__).parents[1] / "results" / "tuned"


class Tuned(Strict):
    """Of one method, over its settings of `benchmarks.curriculum.methods`."""

    curriculum: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    found: dict[str, Any] = Field(default_factory=dict)
    """How: pool, base policy, seeds, budgets of the rungs, and every candidate's score at each rung."""


_FILE: TypeAdapter[dict[str, Tuned]] = TypeAdapter(dict[str, Tuned])


def load_tuned(world: str, folder: Path = TUNED) -> dict[str, Tuned]:
    """By method; empty where nothing was tuned in that world."""
    path = folder / f"{world}.json"
    return _FILE.validate_json(path.read_bytes()) if path.exists() else {}


def keep_tuned(world: str, new: Mapping[str, Tuned], folder: Path = TUNED) -> Path:
    """Put methods beside those that are kept, or in their place."""
    path = folder / f"{world}.json"
    kept = {**load_tuned(world, folder), **new}
    rows = {name: kept[name].model_dump(mode="json") for name in sorted(kept)}
    write_atomic(path, (json.dumps(rows, indent=1, sort_keys=True) + "\n").encode())
    return path
