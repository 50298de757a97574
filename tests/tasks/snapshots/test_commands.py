"""What is said where git cannot be called at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from cures_core.errors import MissingExtra, StoreUnavailable
from tasks.snapshots.commands import git


def test_a_folder_that_is_gone_is_not_a_git_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreUnavailable, match=r"folder .*/gone is gone"):
        git(tmp_path / "gone", "status")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="apt-get install git"):
        git(tmp_path, "status")
