"""What files hold, for tests that look for what must not be in them: packed bytes hide it from a search."""

from __future__ import annotations

import contextlib
import gzip
import io
import subprocess
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_DAMAGED = (OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile, pa.ArrowException)


def written_in(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """The files of a folder, each as it is and unpacked; of packs of git every object."""
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            yield path, data
            for part in unpacked(data):
                yield path, part
            if path.suffix == ".pack":
                yield path, git_objects(path.parents[2])


def unpacked(data: bytes) -> Iterator[bytes]:
    """What compressed bytes hold: Parquet, zip, gzip, and git's objects. Nothing where they are none, or damaged."""
    with contextlib.suppress(*_DAMAGED):
        if data.startswith(b"PAR1"):
            table, plain = pq.read_table(io.BytesIO(data)), io.BytesIO()
            with pa.ipc.new_stream(plain, table.schema) as stream:
                stream.write_table(table)
            yield plain.getvalue()
        elif data.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for name in archive.namelist():
                    yield archive.read(name)
        elif data.startswith(b"\x1f\x8b"):
            yield gzip.decompress(data)
        elif data.startswith(b"x"):
            yield zlib.decompress(data)


def git_objects(repository: Path) -> bytes:
    """Every object of a repository, given by its folder of git's own files; what can be read where it is damaged."""
    command = ["git", "--git-dir", str(repository), "cat-file", "--batch-all-objects", "--batch"]
    return subprocess.run(command, capture_output=True, check=False).stdout
