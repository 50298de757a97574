"""Knows bytes on disk: which files may be read, how they are unpacked, how lines come out in bounded memory."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa

from cures_core.errors import ConfigError, DataRejected, MissingInput, TryAgain
from cures_core.failures import machine_failure
from cures_core.files import digest_file, digest_folder

CHUNK = 1 << 20
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_FOREIGN = {b"\xff\xfe": "UTF-16 or UTF-32", b"\xfe\xff": "UTF-16", b"PK\x03\x04": "a zip archive", b"BZh": "bzip2"}


class ByteStream(Protocol):
    """What a line reader needs of a file."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A file or folder as it was when reading began."""

    path: Path
    stamps: tuple[tuple[int, int, int], ...]
    digest: str

    @classmethod
    def of(cls, path: Path) -> Snapshot:
        """Digest and time stamps of the file. Raises `MissingInput` or `ConfigError` for what cannot be read."""
        stamps = _stamps(path)
        return cls(path, stamps, digest_folder(path) if path.is_dir() else digest_file(path))

    def check(self) -> None:
        """`TryAgain` if the file is not what it was: rows read meanwhile may be of both versions."""
        if _stamps(self.path) != self.stamps:
            raise TryAgain(f"{self.path}: the file changed while it was read; try again when nothing writes to it")


def check_readable(path: Path) -> None:
    """Raise `MissingInput` or `ConfigError`, with the reason, unless `path` is a readable regular file or a folder."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise MissingInput(f"{path}: no such file{_neighbours(path)}") from error
    except OSError as error:
        why = (
            "a symbolic link that leads back to itself" if error.errno == errno.ELOOP else os.strerror(error.errno or 0)
        )
        raise machine_failure(error, path) or ConfigError(f"{path}: cannot be read: {why}") from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ConfigError(f"{path}: neither a file nor a folder; write the rows to a file first")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"{path}: no permission to read it")


@contextmanager
def opened(path: Path) -> Iterator[ByteStream]:
    """The bytes of a file, unpacked where it is gzip or zstd. `DataRejected` for other encodings and archives."""
    with path.open("rb") as raw:
        head = raw.read(4)
        raw.seek(0)
        for magic, name in _FOREIGN.items():
            if head.startswith(magic):
                raise DataRejected(f"{path}: this is {name}; convert it to UTF-8 text (plain, gzip or zstd)")
        codec = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
        yield raw if codec is None else _Unpacked(path, pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec))


def unpacked(path: Path) -> IO[bytes] | None:
    """What is packed in a gzip or zstd file, in a temporary one that ends with its handle; None where nothing is."""
    with path.open("rb") as raw:
        if not raw.read(4).startswith(tuple(_MAGIC)):
            return None
    whole = tempfile.TemporaryFile()  # noqa: SIM115 (the caller's)
    with opened(path) as stream:
        while chunk := stream.read(CHUNK):
            whole.write(chunk)
    whole.seek(0)
    return whole


class _Unpacked:
    """A decompressed stream whose damage is reported with the file's name."""

    def __init__(self, path: Path, stream: Any) -> None:
        self._path, self._stream = path, stream

    def read(self, size: int, /) -> bytes:
        try:
            return self._stream.read(size)  # type: ignore[no-any-return]
        except (OSError, pa.ArrowException) as error:
            raise machine_failure(error, self._path) or DataRejected(
                f"{self._path}: damaged or cut archive ({error}); fetch it again"
            ) from error


def capped_lines(stream: ByteStream, cap: int) -> Iterator[tuple[bytes, bool]]:
    """(line without its LF, whether it had one). Lines split on LF only.

    A line longer than `cap` bytes comes as its first `cap + 1`, the rest is skipped: memory stays below cap + 2 chunks.
    """
    parts: list[bytes] = []  # of the line that the next chunk goes on with
    size = 0
    while chunk := stream.read(CHUNK):
        first, *more = chunk.split(b"\n")
        if size <= cap:
            parts.append(first)
        size += len(first)
        if more:
            yield b"".join(parts)[: cap + 1], True
            for line in more[:-1]:
                yield line[: cap + 1], True
            parts, size = more[-1:], len(more[-1])
    if size:
        yield b"".join(parts)[: cap + 1], False


def _stamps(path: Path) -> tuple[tuple[int, int, int], ...]:
    check_readable(path)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return tuple((s.st_size, s.st_mtime_ns, s.st_ino) for s in (p.stat() for p in files))


def _neighbours(path: Path) -> str:
    """Readable files beside a missing one, for the message."""
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent} either"
    names = sorted(
        p.name for p in path.parent.iterdir() if p.suffix in {".jsonl", ".json", ".csv", ".parquet", ".arrow", ".gz"}
    )
    return f"; {path.parent} holds {', '.join(names[:5])}" if names else ""
