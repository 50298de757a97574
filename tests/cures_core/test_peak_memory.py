from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cures_core import peak_memory

ASK = "from cures_core.peak_memory import peak_bytes; print(peak_bytes())"
HOLD = "block = b'a' * (64 << 20)\ndel block\n"  # written to, so resident


def peak_of_a_process(script: str) -> int:
    return int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)


def test_a_block_that_was_held_counts_after_it_is_gone() -> None:
    assert peak_of_a_process(HOLD + ASK) - peak_of_a_process(ASK) > 60 << 20


def test_the_size_of_the_parent_does_not_count() -> None:
    block = b"a" * (256 << 20)
    assert peak_of_a_process(ASK) < len(block)


@pytest.mark.parametrize("status", ["", "Name:\tpython\n"])
def test_without_that_line_the_kernel_is_asked(status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status"
    if status:
        path.write_text(status)
    monkeypatch.setattr(peak_memory, "_STATUS", path)
    assert peak_memory.peak_bytes() > 1 << 20
