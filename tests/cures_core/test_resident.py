from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cures_core import resident

ASK = "from cures_core.resident import peak_bytes; print(peak_bytes())"


def test_a_block_that_was_held_counts_after_it_is_gone() -> None:
    before = resident.peak_bytes()
    block = b"a" * (before + (64 << 20))  # written to, so resident
    del block
    assert resident.peak_bytes() - before > 64 << 20


def test_the_size_of_the_parent_does_not_count() -> None:
    block = b"a" * (256 << 20)
    asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, check=True)
    assert int(asked.stdout) < len(block)


@pytest.mark.parametrize("status", ["", "Name:\tpython\n"])
def test_without_that_line_the_kernel_is_asked(status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status"
    if status:
        path.write_text(status)
    monkeypatch.setattr(resident, "_STATUS", path)
    assert resident.peak_bytes() > 1 << 20
