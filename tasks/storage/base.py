"""The store's interface: small values with conditional writes, and folders of files whose manifest comes last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable


@runtime_checkable
class Store(Protocol):
    """Every write is whole or absent, and durable when the call returns. Values are small; files may be large.

    All methods raise `StoreUnavailable` where the store cannot be reached, is full or refuses, and `ConfigError` for a
    key outside the allowed names. A key that names a value cannot be the prefix of files, and the other way round.
    """

    def get(self, key: str) -> bytes | None:
        """The value, or None where there is none."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write unconditionally: for views that can be made again, never for what decides anything."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """False if the key exists already; of many concurrent callers exactly one gets True."""
        ...

    def compare_and_swap(self, key: str, expected: bytes | None, data: bytes) -> bool:
        """Write only if the value is still `expected` (None: absent); of many concurrent callers one gets True."""
        ...

    def delete(self, prefix: str) -> None:
        """Remove a value, or all values and files under a prefix. Nothing happens if there is none."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Keys of the values in the folder `prefix` and below, sorted."""
        ...

    def publish_files(self, prefix: str, folder: Path) -> str:
        """Store a folder's files, the manifest last; returns the manifest's SHA-256. `folder` may be consumed.

        Publishing the same bytes again changes nothing; other bytes replace the old ones. So a prefix must belong to
        one writer: put the fencing token into it where several may work on the same thing.
        """
        ...

    def verify_files(self, prefix: str, manifest: str | None = None, *, deep: bool = True) -> None:
        """Check every file under `prefix` against the manifest, and that against its SHA-256 where it is given.

        `deep` reads all bytes; without it those of files that are not as they were when their bytes were last read, as
        far as the store can tell (times of change; ETags). Raises `CorruptArtifact` naming the file.
        """
        ...

    def local_path(self, prefix: str) -> Path:
        """A local folder with the files under a prefix, fetched and checked if need be; not to be written to.

        Raises `CorruptArtifact` where they are not there.
        """
        ...
