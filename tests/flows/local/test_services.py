"""Ports and keys of a local stack: chosen once, whole or absent, private."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cures_core.errors import CorruptArtifact
from flows.local.services import chosen_once


def test_of_several_first_starts_at_once_one_chooses(tmp_path: Path) -> None:
    barrier, found = threading.Barrier(8), []

    def choose(i: int) -> None:
        barrier.wait()
        found.append(chosen_once(tmp_path / "s3-access.json", {"port": i}))

    threads = [threading.Thread(target=choose, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one == found[0] for one in found] == [True] * 8
    assert [p.name for p in tmp_path.iterdir()] == ["s3-access.json"]
    assert (tmp_path / "s3-access.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("data", [b"", b'{"port": 1', b"[]"])
def test_a_damaged_note_is_named_with_what_to_do(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "s3-access.json").write_bytes(data)
    with pytest.raises(CorruptArtifact, match=r"s3-access\.json: damaged.*cures down"):
        chosen_once(tmp_path / "s3-access.json", {"port": 1})
