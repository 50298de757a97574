"""Files as they were at a revision of the repository around the working directory, whether git or DVC keeps them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from cures_core.errors import ConfigError, MissingExtra, MissingInput, StoreUnavailable
from cures_core.names import check_revision
from cures_core.secrets import masked
from tasks.inputs.builtin import TRACKER, builtin_bytes, is_builtin

_NO_ANSWER = re.compile(
    "Could not connect to the endpoint URL|(Connect|Read) timeout on endpoint URL|Temporary failure in name resolution"
    "|Connection (refused|reset by peer|timed out)"
)
"""What DVC says for S3 and other servers that are away; of files that no remote holds it says other things."""


def commit_of(revision: str) -> str:
    """The commit that a branch, tag or abbreviation names now. `ConfigError` where there is none, `MissingExtra` where
    git is not installed."""
    check_revision(revision)
    _root()
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found.returncode:
        raise ConfigError(f"{revision}: no such revision; a CI checkout needs its history (fetch-depth: 0)")
    return found.stdout.decode().strip()


def is_no_commit(revision: str) -> bool:
    """Is it what GitLab and GitHub name as the commit before the first push of a branch: nothing but zeros?"""
    return len(revision) >= 40 and not revision.strip("0")


def file_at(revision: str, path: str, out: Path) -> Path:
    """Write `path` (relative to the working directory) as of `revision` to `out`; a folder where DVC tracks one.

    Raises `ConfigError` for a revision or a path that the repository does not know, `MissingInput` where DVC tracks
    the file but neither its cache nor a remote has it, `StoreUnavailable` where its remote does not answer.
    """
    commit, root = commit_of(revision), _root()
    inside = Path(os.path.relpath(Path(path).absolute(), root))  # not resolved: links are git's business
    if ".." in inside.parts:
        raise ConfigError(f"{path}@{revision}: name a path inside the repository {root}")
    out.parent.mkdir(parents=True, exist_ok=True)
    found = _git("cat-file", "blob", f"{commit}:{inside}")
    if found.returncode == 0:
        out.write_bytes(found.stdout)
        return out
    if is_builtin(inside, _git("cat-file", "blob", f"{commit}:{TRACKER}").stdout):
        out.write_bytes(builtin_bytes(inside))
        return out
    if not _tracked(commit, inside):
        raise ConfigError(f"{path}: neither git nor DVC knows it at {revision} (folders must be under DVC)")
    options = ["--rev", commit, "--out", str(out), "--force"]
    command = [sys.executable, "-m", "dvc", "get", *options, "--", str(root), str(inside)]  # a name may begin with -
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = masked(" ".join(done.stderr.split())[-300:])
        if _NO_ANSWER.search(done.stderr):
            raise StoreUnavailable(
                f"{path} at {revision}: DVC's remote does not answer ({reason}). Try again when it does"
            )
        raise MissingInput(f"{path} at {revision}: DVC tracks it but cannot get it ({reason}). Push it with `dvc push`")
    return out


def _root() -> Path:
    found = _git("rev-parse", "--show-toplevel")
    if found.returncode:
        raise ConfigError(f"{Path.cwd()}: not inside a git repository, so there are no revisions to read from")
    return Path(os.fsdecode(found.stdout).strip())


def _tracked(commit: str, path: Path) -> bool:
    places = [path, *list(path.parents)[:-1]]
    return any(_git("cat-file", "-e", f"{commit}:{place}.dvc").returncode == 0 for place in places)


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=False)
    except FileNotFoundError as error:
        raise MissingExtra("reading a revision: git is not installed. With Debian: apt-get install git") from error
