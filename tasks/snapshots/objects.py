"""The DVC remote's objects, read back: DVC reports what it sent, not what lies there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Protocol

from cures_core.files import sync_folder, write_atomic
from tasks.storage.s3_client import S3, AnswerError


class Objects(Protocol):
    """Objects by the MD5 of their bytes, where DVC 3 keeps them."""

    def read(self, md5: str) -> bytes | None:
        """The object's bytes, unchecked; None if it is not there."""
        ...

    def write(self, md5: str, data: bytes) -> None:
        """Put the object's bytes there, over what there is."""
        ...

    def remove(self, md5: str) -> None: ...

    def flush(self, md5: str) -> None:
        """Make the object durable."""
        ...


class FolderObjects:
    """A DVC remote in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, md5: str) -> bytes | None:
        path = self._folder / object_name(md5)
        return path.read_bytes() if path.is_file() else None

    def write(self, md5: str, data: bytes) -> None:
        path = self._folder / object_name(md5)
        path.unlink(missing_ok=True)  # DVC's objects are read-only
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)

    def remove(self, md5: str) -> None:
        (self._folder / object_name(md5)).unlink(missing_ok=True)

    def flush(self, md5: str) -> None:
        path = self._folder / object_name(md5)
        with path.open("rb") as f:
            os.fsync(f.fileno())
        for folder in list(path.parents)[:4]:  # DVC does not: the two letters, md5, files, the remote itself
            sync_folder(folder)


class S3Objects:
    """A DVC remote in a bucket."""

    def __init__(self, url: str, endpoint_url: str | None) -> None:
        self._s3 = S3(url, endpoint_url)

    def read(self, md5: str) -> bytes | None:
        try:
            return self._s3.read(object_name(md5))[0]
        except AnswerError:
            return None

    def write(self, md5: str, data: bytes) -> None:
        self._s3.call("put_object", object_name(md5), Body=data)

    def remove(self, md5: str) -> None:
        self._s3.call("delete_object", object_name(md5))

    def flush(self, md5: str) -> None:
        """S3 keeps what it has acknowledged."""


def open_objects(remote: str, endpoint_url: str | None) -> Objects:
    """The objects of a DVC remote: a folder or `s3://bucket/prefix`."""
    return S3Objects(remote, endpoint_url) if remote.startswith("s3://") else FolderObjects(Path(remote).absolute())


def object_name(md5: str) -> str:
    """Where DVC 3 keeps the object in a remote."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def digest_md5(data: bytes) -> str:
    """The MD5 that names an object; no protection against an attacker, only against accidents."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
