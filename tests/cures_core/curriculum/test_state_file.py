"""A curriculum's state as a file: what cannot be read is told apart from what is damaged."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from cures_core.curriculum.state_file import load_state, save_state
from cures_core.errors import CorruptArtifact, MissingInput, SystemRefused


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """All file descriptors of the process are in use."""
    before, held = resource.getrlimit(resource.RLIMIT_NOFILE), list[int]()
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1, before[1])
    )
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for number in held:
            os.close(number)


def test_a_state_is_read_as_it_was_written_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state({"step": 3, "counts": [1.5, 2.0]}, path)
    assert load_state(path) == {"step": 3, "counts": [1.5, 2.0]}
    path.write_bytes(path.read_bytes()[:-4] if path.stat().st_size > 64 else b"")
    with pytest.raises(CorruptArtifact, match=r"state\.safetensors: not a readable curriculum state"):
        load_state(path)
    path.unlink()
    with pytest.raises(MissingInput):
        load_state(path)


def test_a_lack_of_file_descriptors_is_not_taken_for_damage(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state({"step": 3}, path)
    load_state(path)  # what is imported late is imported now
    with no_more_files(), pytest.raises(SystemRefused, match=r"state\.safetensors: Too many open files"):
        load_state(path)
