"""Ports and keys of a local stack: chosen once, whole or absent, private."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from cures_core.errors import CorruptArtifact
from flows.local.processes import noted_port
from flows.local.services import S3_NOTE, S3Access, chosen_once
from flows.local.stack import Stack, status


def access(port: int) -> S3Access:
    return S3Access(port=port, id="i", key="k")


def test_of_several_first_starts_at_once_one_chooses(tmp_path: Path) -> None:
    barrier, found = threading.Barrier(8), []

    def choose(i: int) -> None:
        barrier.wait()
        found.append(chosen_once(tmp_path / "s3-access.json", access(i)))

    threads = [threading.Thread(target=choose, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one == found[0] for one in found] == [True] * 8
    assert [p.name for p in tmp_path.iterdir()] == ["s3-access.json"]
    assert (tmp_path / "s3-access.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["s3-access.json", "postgres-access.json", "server.json", "worker.json"])
@pytest.mark.parametrize("data", [b"", b'{"port": 1', b"[]", b"{}", b'{"port": "one"}'])
def test_a_damaged_note_is_named_with_what_to_do(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    remedy = "cures down" if "access" in name else "remove the file"
    with pytest.raises(CorruptArtifact, match=rf"{re.escape(name)}: .*{remedy}"):
        status(Stack.at(tmp_path))
    if name == S3_NOTE:
        with pytest.raises(CorruptArtifact, match=r"s3-access\.json: .*cures down"):
            chosen_once(tmp_path / name, access(1))


def test_notes_of_earlier_versions_are_read(tmp_path: Path) -> None:
    (tmp_path / "s3-access.json").write_bytes(b'{"id":"i","key":"k","port":7}')
    assert chosen_once(tmp_path / "s3-access.json", access(1)) == S3Access(port=7, id="i", key="k")
    (tmp_path / "server.json").write_bytes(b'{"pid":1,"port":4321,"started":"0"}')
    assert noted_port(tmp_path, "server") == 4321
