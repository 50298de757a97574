"""A folder that another process deletes while it is looked at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def vanishing(folder: Path, look: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete the folder right before the `look`-th listing of a folder from now on."""
    looks = 0

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def looked(*args: Any) -> Any:
            nonlocal looks
            looks += 1
            if looks == look:
                shutil.rmtree(folder)
            return call(*args)

        return looked

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, wrapped(getattr(os, name)))
