"""Files as they were at a revision of the repository, whether git or DVC keeps them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cures_core.errors import ConfigError, MissingInput


def file_at(revision: str, path: str, out: Path) -> Path:
    """Write `path` (relative to the repository's root, the working directory) as of `revision` to the file `out`.

    Raises `ConfigError` for a revision or a path that the repository does not know, `MissingInput` where DVC tracks
    the file but neither its cache nor a remote has it.
    """
    if revision.startswith("-") or Path(path).is_absolute():
        raise ConfigError(f"{revision}:{path}: name a revision, and a path inside the repository")
    if _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").returncode:
        raise ConfigError(f"{revision}: no such revision; a CI checkout needs its history (fetch-depth: 0)")
    out.parent.mkdir(parents=True, exist_ok=True)
    found = _git("cat-file", "blob", f"{revision}:{path}")
    if found.returncode == 0:
        out.write_bytes(found.stdout)
        return out
    if not _tracked(revision, path):
        raise ConfigError(f"{path}: neither git nor DVC knows it at {revision}")
    command = [sys.executable, "-m", "dvc", "get", ".", path, "--rev", revision, "--out", str(out), "--force"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())[-300:]
        raise MissingInput(f"{path} at {revision}: DVC tracks it but cannot get it ({said}). Push it with `dvc push`")
    return out


def _tracked(revision: str, path: str) -> bool:
    places = [Path(path), *list(Path(path).parents)[:-1]]
    return any(_git("cat-file", "-e", f"{revision}:{place}.dvc").returncode == 0 for place in places)


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], capture_output=True, check=False)
