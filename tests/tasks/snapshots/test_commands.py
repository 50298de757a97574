"""What is said where git cannot be called at all, or git and DVC have no room."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

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


def test_a_command_that_fails_on_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC itself spoke of a "disk I/O error"."""
    with pytest.raises(StoreUnavailable) as told:
        git(tmp_path, "no-such-command")
    assert "full" not in str(told.value)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    with pytest.raises(StoreUnavailable, match=r"The disk is full: 4,096 bytes are free in .*Make room there"):
        git(tmp_path, "no-such-command")
