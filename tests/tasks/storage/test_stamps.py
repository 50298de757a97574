"""Files that nobody has touched since they were read are not read again; whatever was touched is."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from cures_core.errors import CorruptArtifact
from cures_core.testing.store import folder_of
from tasks.storage import LocalStore, S3Store
from tasks.storage import local as local_module
from tasks.storage import s3_client as client_module
from tests.tasks.storage.servers import BUCKET, moto_url

__all__ = ["moto_url"]

FILES = {"weights": b"0" * 1000, "deep/er": b"1"}


class Reads:
    """Counts how often a whole folder is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        verify = local_module.verify_manifest

        def counted(folder: Path) -> str:
            self.number += 1
            return verify(folder)

        monkeypatch.setattr(local_module, "verify_manifest", counted)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    store.publish_files("art/a", folder_of(tmp_path / "in", FILES))
    time.sleep(0.1)  # longer than the clock of the file system may stand still
    store.verify_files("art/a", deep=False)
    return store


def test_untouched_files_are_read_once(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(monkeypatch)
    for _ in range(3):
        store.verify_files("art/a", deep=False)
    LocalStore(store.root).verify_files("art/a", deep=False)
    assert reads.number == 0
    store.verify_files("art/a")
    assert reads.number == 1


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_flipped_byte_is_told_though_sizes_and_times_are_the_same(store: LocalStore, keep_times: bool) -> None:
    path = store.root / "art" / "a" / "weights"
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"0" * 999 + b"1")
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(CorruptArtifact, match="weights"):
            store.verify_files("art/a", deep=False)
    path.write_bytes(b"0" * 1000)
    store.verify_files("art/a", deep=False)


def test_stamps_that_cannot_be_read_or_written_cost_time_alone(store: LocalStore, monkeypatch: Any) -> None:
    (store.root / ".stamps" / "art" / "a.json").write_bytes(b"\xff")
    store.verify_files("art/a", deep=False)

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(local_module, "write_atomic", refuse)
    store.verify_files("art/a")


def test_with_the_files_their_stamps_go(store: LocalStore) -> None:
    assert list((store.root / ".stamps").rglob("*.json"))
    store.delete("art")
    assert not [path for path in (store.root / ".stamps").rglob("*") if path.is_file()]


def test_on_s3_another_etag_is_read_and_the_same_one_is_not(
    tmp_path: Path, moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    store = S3Store(place, tmp_path / "a", moto_url)
    digest = store.publish_files("art/a", folder_of(tmp_path / "in", FILES))
    assert sorted(store.list("art")) == ["art/a/deep/er", "art/a/manifest.json", "art/a/weights"]
    read: list[str] = []
    sha256 = client_module.S3.sha256
    monkeypatch.setattr(client_module.S3, "sha256", lambda s3, key: read.append(key) or sha256(s3, key))
    other = S3Store(place, tmp_path / "b", moto_url)  # another machine
    other.verify_files("art/a", digest, deep=False)
    assert read == []
    other.put("art/a/weights", b"0" * 999 + b"1")
    with pytest.raises(CorruptArtifact, match="weights"):
        store.verify_files("art/a", digest, deep=False)
    other.put("art/a/weights", FILES["weights"])
    store.verify_files("art/a", digest, deep=False)


def test_on_s3_a_damaged_copy_of_this_machine_is_fetched_again(tmp_path: Path, moto_url: str) -> None:
    store = S3Store(f"s3://{BUCKET}/{uuid.uuid4().hex}", tmp_path / "cache", moto_url)
    store.publish_files("art/a", folder_of(tmp_path / "in", FILES))
    copy = store.local_path("art/a") / "weights"
    copy.chmod(0o644)
    copy.write_bytes(b"0" * 999 + b"1")
    assert (store.local_path("art/a") / "weights").read_bytes() == FILES["weights"]
