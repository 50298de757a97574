"""The built-in prompt sets under data/: checked at every use, made where they are missing, made again where damaged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import tempfile
from functools import cache
from pathlib import Path

from cures_core.builtin import chains, mixture, sums
from cures_core.errors import MissingInput
from cures_core.faults import fault_point
from cures_core.files import write_atomic

_log = logging.getLogger(__name__)

DATA, TRACKER, ASIDE = Path("data"), Path("data.dvc"), Path("data.damaged")
_SETS = {"chains": chains.write_builtin, "mixed": mixture.write_builtin, "sums": sums.write_builtin}
FILES = {
    "chains/frontier.jsonl": (37_144, "41dbf835c015b26e2059bd3c0c4d85d9"),
    "chains/heldout.jsonl": (36_506, "b25b709f8a0f2c5fc80f7df4759bafdc"),
    "chains/train.jsonl": (146_913, "ffd186cab8e0c5a01790e7046b864a52"),
    "mixed/heldout.jsonl": (15_316, "f1a55f2aae642dddaebc6b6afdeead29"),
    "mixed/train.jsonl": (38_283, "fb4a5ac6806c6d87a4e6346e4dcbe037"),
    "sums/heldout.jsonl": (7_167, "63e36e63d363ecb6c6b93034ac38f5ea"),
    "sums/train.jsonl": (14_322, "71c6b7a3793ff0687600d16cfb1f3e1f"),
}
"""Bytes and MD5 of what the generators write; a test holds them against these and against data.dvc."""
EARLIER = "341fb765433fe778c3069029ab14038a"
"""What DVC said of the folder before it had mixed/; the other files are the same."""


def ensure_builtin(path: Path) -> None:
    """See that `path`, if it is a built-in set, is there and whole.

    Where data.dvc tracks the built-in sets, a file with other bytes is set aside in data.damaged/ and made again.
    Where there is no data.dvc, such a file is somebody's own, unless it is a beginning of ours. Where data.dvc tracks
    other data, nothing is made: `MissingInput` if the file is not there.
    """
    name = next((name for name in FILES if path == DATA / name), None)
    if name is None:
        return
    tracked = _tracked_digest()
    if tracked not in (None, EARLIER, folder_digest()):
        if not path.exists():
            raise MissingInput(f"{path}: is not there, and data.dvc tracks other data; get it with `dvc pull`")
    elif not _is_whole(name) and (tracked is not None or _is_cut(name)):
        _make_whole(own_files=tracked is None)


def is_builtin(path: Path, tracker: bytes) -> bool:
    """Is `path` a built-in set, as a `data.dvc` with these bytes tracks it? It needs no remote then: it can be made."""
    name = str(path.relative_to(DATA)) if path.is_relative_to(DATA) else ""
    tracked = _digest_in(tracker)
    return name in FILES and (tracked == folder_digest() or (tracked == EARLIER and not name.startswith("mixed/")))


def builtin_bytes(path: Path) -> bytes:
    """What the package makes of the built-in set at `path`."""
    return _made()[str(path.relative_to(DATA))]


def folder_digest() -> str:
    """What DVC says of a folder with the built-in sets: the MD5 of its list of files."""
    rows = [{"md5": md5, "relpath": name} for name, (_, md5) in sorted(FILES.items())]
    return hashlib.md5(json.dumps(rows, sort_keys=True).encode(), usedforsecurity=False).hexdigest()


def _tracked_digest() -> str | None:
    """The digest in data.dvc; None where there is no such file, or it names no folder."""
    with contextlib.suppress(FileNotFoundError):
        return _digest_in(TRACKER.read_bytes())
    return None


def _digest_in(tracker: bytes) -> str | None:
    found = re.search(rb"\bmd5: ([0-9a-f]{32})\.dir\b", tracker)
    return None if found is None else found[1].decode()


def _is_whole(name: str) -> bool:
    size, md5 = FILES[name]
    with contextlib.suppress(FileNotFoundError):
        data = (DATA / name).read_bytes()
        return len(data) == size and hashlib.md5(data, usedforsecurity=False).hexdigest() == md5
    return False


def _is_cut(name: str) -> bool:
    """Is the file missing, or what a writer that was killed has left of it?"""
    with contextlib.suppress(FileNotFoundError):
        data = (DATA / name).read_bytes()
        return len(data) < FILES[name][0] and _made()[name].startswith(data)
    return True


def _make_whole(*, own_files: bool) -> None:
    """Put every file that is not whole in its place, at once and for good, so that several processes may do so."""
    _sweep()
    for name, data in _made().items():
        if _is_whole(name) or (own_files and not _is_cut(name)):
            continue
        _set_aside(name)
        fault_point("builtin.before_file", name)
        write_atomic(DATA / name, data)


@cache
def _made() -> dict[str, bytes]:
    """Always the same, so that a process makes it once, however many folders need it."""
    with tempfile.TemporaryDirectory(prefix="cures-data-") as folder:
        for name, write in _SETS.items():
            write(Path(folder, name))
        return {name: Path(folder, name).read_bytes() for name in FILES}


def _set_aside(name: str) -> None:
    """Keep a copy of bytes that are not ours; the file stays until it is replaced, for those who read it now."""
    with contextlib.suppress(FileNotFoundError):
        data = (DATA / name).read_bytes()
        copy = ASIDE / f"{name}.{hashlib.sha256(data).hexdigest()[:8]}"
        write_atomic(copy, data)
        _log.warning("%s: not the built-in set; it was made again, what was there is kept as %s", DATA / name, copy)


def _sweep() -> None:
    """Remove what killed writers have left: DVC would count it."""
    for left in DATA.glob("*/.*.jsonl.*.tmp"):
        if not Path("/proc", left.name.split(".")[-2]).exists():
            left.unlink(missing_ok=True)
