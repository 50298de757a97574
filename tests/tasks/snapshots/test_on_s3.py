"""Snapshots whose data lies in a bucket."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from cures_core.config.snapshot import SnapshotConfig
from cures_core.errors import ConfigError, CorruptArtifact, StoreUnavailable
from tasks.snapshots import list_snapshots, read_snapshot
from tasks.snapshots.objects import object_name
from tasks.storage.s3_client import S3
from tests.tasks.snapshots.test_publish import git, publish
from tests.tasks.storage.servers import BUCKET, KEYS, FaultyServer, moto_url, seaweedfs

__all__ = ["moto_url"]


def config(tmp_path: Path, url: str) -> SnapshotConfig:
    return SnapshotConfig(
        repository=str(tmp_path / "r.git"), remote=f"s3://{BUCKET}/{uuid.uuid4().hex}/dvc", endpoint_url=url
    )


def check_whole_life(tmp_path: Path, url: str) -> None:
    cfg = config(tmp_path, url)
    record = publish(tmp_path, cfg, 1, "posterior/run-1/0")
    data = (tmp_path / "1.parquet").read_bytes()
    bucket = S3(cfg.remote or "", url)
    assert bucket.read(object_name(record.md5))[0] == data
    assert bucket.sizes("files") == {object_name(record.md5): len(data)}
    command = ["dvc", "get", str(cfg.repository), record.path, "--rev", record.tag, "-o", "got.parquet"]
    subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "got.parquet").read_bytes() == data
    bucket.call("put_object", object_name(record.md5), Body=b"damaged")
    with pytest.raises(CorruptArtifact):
        read_snapshot(record.tag, cfg)
    assert publish(tmp_path, cfg, 1, "posterior/run-1/0") == record
    assert read_snapshot(record.tag, cfg) == data
    shown = git(cfg.repository, "show", f"{record.tag}:.dvc/config")
    assert f"endpointurl = {url}" in shown
    assert not any(secret in shown for secret in KEYS.values())


def test_on_moto(tmp_path: Path, moto_url: str) -> None:
    check_whole_life(tmp_path, moto_url)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_on_seaweedfs(tmp_path: Path) -> None:
    with seaweedfs(tmp_path) as url:
        check_whole_life(tmp_path, url)


def test_a_push_that_breaks_off_publishes_nothing(tmp_path: Path, moto_url: str) -> None:
    with FaultyServer(moto_url, lambda _, method: (403, "AccessDenied") if method == "PUT" else None) as server:
        cfg = config(tmp_path, server.url)
        with pytest.raises((StoreUnavailable, ConfigError)) as caught:
            publish(tmp_path, cfg, 1, "posterior/run-1/0")
    assert not any(secret in str(caught.value) for secret in KEYS.values())
    assert list_snapshots(cfg) == []
