"""The S3 store sits the store exam, against moto and against SeaweedFS."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cures_core.testing.store import StoreExam
from tasks.storage import S3Store
from tests.tasks.storage.servers import BUCKET, moto_url, seaweedfs

__all__ = ["moto_url"]


class S3Exam(StoreExam):
    url: str

    def make(self, tmp_path: Path) -> S3Store:
        prefix = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:16]
        return S3Store(f"s3://{BUCKET}/{prefix}/deep", tmp_path / "cache", self.url)

    def damage(self, tmp_path: Path, key: str, change: Callable[[bytes], bytes | None]) -> None:
        s3 = self.make(tmp_path)._s3
        data = change(s3.read(key)[0])
        if data is None:
            s3.call("delete_object", key)
        else:
            s3.call("put_object", key, Body=data)


class TestOnMoto(S3Exam):
    @pytest.fixture(autouse=True)
    def server(self, moto_url: str) -> None:
        self.url = moto_url


@pytest.mark.slow
@pytest.mark.end_to_end
class TestOnSeaweedFS(S3Exam):
    @pytest.fixture(scope="class")
    @staticmethod
    def weed_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        with seaweedfs(tmp_path_factory.mktemp("weed")) as url:
            yield url

    @pytest.fixture(autouse=True)
    def server(self, weed_url: str) -> None:
        self.url = weed_url

    def test_the_server_has_conditional_writes(self, tmp_path: Path) -> None:
        self.make(tmp_path).check_conditional_writes()
