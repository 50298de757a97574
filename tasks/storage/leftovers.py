"""What killed processes leave: names that tell who writes under them, and the sweep that goes by them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import uuid
from functools import cache
from pathlib import Path

from cures_core.files import digest_json
from tasks.storage.lease import process_start, this_process

HEX = "[0-9a-f]" * 32
"""Glob pattern of what every `owned_name` ends with."""
_OWNED = re.compile(r"([0-9a-f]{16})-(\d+)-([^-]+)-[0-9a-f]{32}")
_STALE_S = 3600.0


def owned_name() -> str:
    """A new name, which tells its writer: machine, process and when that started."""
    return f"{_owner(os.getpid())}-{uuid.uuid4().hex}"


def sweep(folder: Path, pattern: str = "*") -> None:
    """Remove what dead processes left in `folder` under names that match: at once where they are known to be gone (not
    those of another machine), else when it is older than an hour. Age is judged by the file system's own clock."""
    found = list(folder.glob(pattern))
    if not found:
        return
    with tempfile.TemporaryFile(dir=folder) as probe:
        now = os.fstat(probe.fileno()).st_mtime
    for path in found:
        with contextlib.suppress(FileNotFoundError):  # another process sweeps as well
            old = now - max(p.stat().st_mtime for p in (path, *path.rglob("*"))) > _STALE_S
            if old or _is_of_the_dead(path.name):
                remove(path)


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@cache
def _owner(pid: int) -> str:
    me = this_process()
    return f"{digest_json(me.machine)[:16]}-{pid}-{me.started}"


def _is_of_the_dead(name: str) -> bool:
    """Is it known that the process is gone that writes under this name? Not of one on another machine."""
    named = _OWNED.search(name)
    if named is None or named[1] != _owner(os.getpid()).partition("-")[0]:
        return False
    return process_start(int(named[2])) != named[3]
