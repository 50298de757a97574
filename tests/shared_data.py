"""Where tests find the public prompt sets that lie beside a checkout; they are never part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_file(name: str) -> Path:
    """Path of a shared prompt set, or skip the test where the folder is absent (CURES_SHARED_DATA names another)."""
    path = Path(os.environ.get("CURES_SHARED_DATA", _DEFAULT)) / name
    if not path.exists():
        pytest.skip(f"{name} is not at hand: set CURES_SHARED_DATA to the folder that holds it")
    return path
