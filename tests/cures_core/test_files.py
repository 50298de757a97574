"""Atomic writes leave the old bytes or the new ones, and nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cures_core.files import write_atomic


def test_a_write_that_fails_leaves_the_old_bytes_and_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "k"
    write_atomic(path, b"old")

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="No space left"):
            write_atomic(path, b"new")
    assert [p.name for p in path.parent.iterdir()] == ["k"]
    assert path.read_bytes() == b"old"
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
