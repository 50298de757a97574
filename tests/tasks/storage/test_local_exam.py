"""The local store sits the store exam."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cures_core.testing.store import StoreExam
from tasks.storage import LocalStore


class TestLocalStore(StoreExam):
    def make(self, tmp_path: Path) -> LocalStore:
        return LocalStore(tmp_path / "store")

    def damage(self, tmp_path: Path, key: str, change: Callable[[bytes], bytes | None]) -> None:
        path = tmp_path / "store" / key
        data = change(path.read_bytes())
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
