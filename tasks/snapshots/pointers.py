"""Snapshots in a git repository: small files under a branch and a tag each, written without a working tree.

A snapshot's commit is made from the branch's last one by git's plumbing, with its own index, and pushed together with
its tag in one transaction that fails if the branch has moved meanwhile; then it is made again from the new one.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import logging
import os
import re
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from cures_core.errors import ConfigError, CorruptArtifact, StoreUnavailable
from tasks.snapshots.commands import git, last_lines
from tasks.storage.leftovers import HEX, owned_name, sweep

_log = logging.getLogger(__name__)
_DEADLINE_S = 120.0
_STALE_LOCK_S = 60.0
_ASK_ALONE = ("-c", "fetch.negotiationAlgorithm=noop")
"""Do not tell the repository what is here already: it would walk its history, where other tags' damage may lie."""
_DAMAGED = re.compile(r"corrupt|missing necessary objects|unable to (read|unpack|parse)|bad object")
_AUTHOR = {
    "GIT_AUTHOR_NAME": "cures",
    "GIT_AUTHOR_EMAIL": "cures@localhost",
    "GIT_COMMITTER_NAME": "cures",
    "GIT_COMMITTER_EMAIL": "cures@localhost",
}


class DamagedReference(CorruptArtifact):
    """Files of a reference cannot be read in the repository itself, in a folder; those of others may be whole."""


class Pointers:
    """The repository seen from a scratch folder, which holds the few objects that are needed and may be removed."""

    def __init__(self, repository: str, scratch: Path) -> None:
        self._url = repository if is_remote(repository) else str(Path(repository).absolute())
        self._local = None if is_remote(repository) else Path(self._url)
        self._git = scratch / "git"
        scratch.mkdir(parents=True, exist_ok=True)
        git(scratch, "init", "-q", "--bare", str(self._git))

    def exists(self) -> bool:
        """False for a path where there is no repository yet."""
        return self._local is None or self._local.exists()

    def create(self, branch: str) -> None:
        """Make a bare repository at the path, if there is none. Many processes may try at once.

        Raises `ConfigError` where the path holds something else.
        """
        place = self._local
        if place is None:
            return
        sweep(place.parent, f".{glob.escape(place.name)}.*{HEX}")
        if place.exists() and (place.is_file() or any(place.iterdir())):
            _require_repository(place)
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = place.with_name(f".{place.name}.{owned_name()}")
        git(place.parent, "init", "-q", "--bare", "-b", branch, str(scratch))
        git(scratch, "config", "core.fsync", "all")  # a tag must not outlive what it points to
        try:
            scratch.rename(place)
        except OSError:
            shutil.rmtree(scratch)
            if not place.exists():
                raise

    def refs(self, *patterns: str) -> dict[str, str]:
        """Reference names that match, with their commits."""
        out = git(self._git, "ls-remote", "--refs", "--", self._url, *patterns).stdout.decode()
        return {name: commit for commit, _, name in (line.partition("\t") for line in out.splitlines())}

    def fetch(self, *refs: str) -> None:
        """Get the files of references, without history. Raises `DamagedReference` naming the first that is damaged."""
        names = [f"+{ref}:{ref}" for ref in refs]
        try:
            git(self._git, *_ASK_ALONE, "fetch", "-q", "--depth", "1", "--no-tags", "--", self._url, *names)
        except StoreUnavailable as error:
            for ref in refs:
                self._require_whole(ref, error)
            raise

    def forget(self, ref: str, commit: str) -> None:
        """Remove a damaged reference, unless it has moved from `commit` meanwhile, so that it can be made again. What
        is damaged is kept in the repository's folder `damaged`."""
        if self._local is not None:
            self._set_damage_aside()
            git(self._local, "update-ref", "-d", ref, commit, check=False)

    def commits(self, refs: Sequence[str]) -> list[str]:
        """Commits of fetched references."""
        return git(self._git, "rev-parse", *(f"{ref}^{{commit}}" for ref in refs)).stdout.decode().split()

    def read(self, names: Sequence[str]) -> list[bytes | None]:
        """Contents of fetched files, each named `ref:path`; None where there is no such file."""
        out = git(self._git, "cat-file", "--batch", stdin="".join(f"{name}\n" for name in names).encode()).stdout
        contents: list[bytes | None] = []
        for _ in names:
            header, _, out = out.partition(b"\n")
            if header.endswith(b" missing"):
                contents.append(None)
                continue
            size = int(header.rsplit(b" ", 1)[1])
            contents.append(out[:size])
            out = out[size + 1 :]
        return contents

    def publish(self, branch: str, tag: str, files: Mapping[str, bytes], message: str, date: str) -> str | None:
        """Put `files` on top of the branch under a new tag; returns the commit, or None if the tag exists by now.

        A branch that is damaged in a repository in a folder begins anew; tags keep what they point to. Raises
        `ConfigError` if the branch holds other things, `DamagedReference` where damage (of a pack) stays in the way,
        and `StoreUnavailable` if the repository does not take the commit within two minutes.
        """
        branch_ref, tag_ref = f"refs/heads/{branch}", f"refs/tags/{tag}"
        deadline, tries = time.monotonic() + _DEADLINE_S, 0
        while True:  # not tenacity's: whether to go on depends on what was found, removed and mended in an attempt
            there = self.refs(branch_ref, tag_ref)
            if tag_ref in there:
                return None
            try:
                tip = self._tip(branch_ref, files) if branch_ref in there else None
            except DamagedReference as error:
                _log.warning("%s The branch begins anew; tags keep what they point to", error)
                self.forget(branch_ref, there[branch_ref])
                tip = None
            commit = self._commit(tip, files, message, date)
            leases = [f"--force-with-lease={branch_ref}:{tip or ''}", f"--force-with-lease={tag_ref}:"]
            targets = [f"{commit}:{branch_ref}", f"{commit}:{tag_ref}"]
            pushed = git(self._git, "push", "-q", "--atomic", *leases, "--", self._url, *targets, check=False)
            if pushed.returncode == 0:
                self._require_whole(tag_ref, None)
                return commit
            there, tries = self.refs(branch_ref, tag_ref), tries + 1
            if there.get(tag_ref) == commit:  # it went through, only the answer was lost
                return commit
            locked = self._remove_stale_lock(pushed.stderr.decode(errors="replace"))
            mended = self._mend(pushed.stderr.decode(errors="replace"))
            hopeless = tries >= 5 and there.get(branch_ref) == tip and not locked and not mended
            if hopeless or time.monotonic() > deadline:
                raise StoreUnavailable(f"git push of {tag}: failed {tries} times, at last with: {last_lines(pushed)}")
            time.sleep(min(2.0, 0.02 * 2**tries) * (0.5 + os.getpid() % 97 / 97))

    def _tip(self, branch_ref: str, files: Mapping[str, bytes]) -> str:
        self.fetch(branch_ref)
        tip = git(self._git, "rev-parse", branch_ref).stdout.decode().strip()
        names = git(self._git, "ls-tree", "--name-only", tip).stdout.decode().split()
        if other := sorted(set(names) - {Path(path).parts[0] for path in files}):
            raise ConfigError(
                f"snapshot.branch: {branch_ref.removeprefix('refs/heads/')} holds other files ({other[0]}); "
                f"name a branch that is for snapshots alone"
            )
        return tip

    def _commit(self, parent: str | None, files: Mapping[str, bytes], message: str, date: str) -> str:
        index = {"GIT_INDEX_FILE": str(self._git / "index.snapshot")}
        Path(index["GIT_INDEX_FILE"]).unlink(missing_ok=True)
        if parent is not None:
            git(self._git, "read-tree", parent, env=index)
        rows = []
        for path, data in files.items():
            blob = git(self._git, "hash-object", "-w", "--stdin", stdin=data).stdout.decode().strip()
            rows.append(f"100644 {blob}\t{path}\n")
        git(self._git, "update-index", "--add", "--index-info", env=index, stdin="".join(rows).encode())
        tree = git(self._git, "write-tree", env=index).stdout.decode().strip()
        when = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        parents = [] if parent is None else ["-p", parent]
        done = git(self._git, "commit-tree", tree, *parents, env={**_AUTHOR, **when}, stdin=message.encode())
        return done.stdout.decode().strip()

    def _require_whole(self, ref: str, error: Exception | None) -> None:
        """Raises `DamagedReference` where git cannot read the files of a reference in the repository itself."""
        if self._local is None:
            return
        read = git(self._local, "archive", "--format=tar", ref, check=False)
        if read.returncode:
            said = "; ".join(last_lines(read).splitlines())
            raise DamagedReference(
                f"{self._url}: {ref}: damaged: {said}. To have it made again: cures run --resume RUN, the run "
                "that it is of; for what was published outside of runs, cures posterior restore TAG"
            ) from error

    def _set_damage_aside(self) -> bool:
        """Move loose objects that are damaged into the repository's folder `damaged`: git does not write what it
        believes to be there, and takes nothing while it stumbles over them. True if there was one."""
        assert self._local is not None
        objects = Path(git(self._local, "rev-parse", "--git-path", "objects").stdout.decode().strip())
        place = self._local / objects
        damaged = [path for path in sorted(place.glob("[0-9a-f][0-9a-f]/*")) if not _is_whole(path)]
        for path in damaged:
            kept = _free_name(place.parent / "damaged" / f"{path.parent.name}{path.name}")
            kept.parent.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another process was first
                path.rename(kept)
                _log.warning("%s: damaged, kept as %s", path, kept)
        return bool(damaged)

    def _mend(self, stderr: str) -> bool:
        """After a push that git refuses because of damage: set it aside, and remove tags whose commit cannot be read;
        their runs make them again. True if there was something to do."""
        if self._local is None or not _DAMAGED.search(stderr):
            return False
        found = self._set_damage_aside()
        for ref, commit in self.refs("refs/tags/posterior/*").items():
            if git(self._local, "cat-file", "commit", commit, check=False).returncode:
                _log.warning("%s: %s: its commit %s cannot be read; removed", self._url, ref, commit)
                self.forget(ref, commit)
                found = True
        return found

    def _remove_stale_lock(self, stderr: str) -> bool:
        """True if a lock file was in the way. One left by a killed git, older than any push takes, is removed."""
        found = re.search(r"Unable to create '([^']+\.lock)': File exists", stderr)
        if found is None:
            return False
        lock = Path(found[1])
        if self._local is not None and lock.is_relative_to(self._local.resolve()):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - lock.stat().st_mtime > _STALE_LOCK_S:
                    lock.unlink()
        return True


def _require_repository(place: Path) -> None:
    """Not only one that `place` lies in, which is what git finds from there."""
    found = (git(place.parent, "rev-parse", "--resolve-git-dir", str(p), check=False) for p in (place, place / ".git"))
    if all(one.returncode for one in found):
        raise ConfigError(
            f"snapshot.repository: {place}: is there and is no git repository, or not a whole one. Name another place, "
            "or move it away and resume the run: it is made anew"
        )


def _is_whole(path: Path) -> bool:
    """Is a loose object what its name says?"""
    name = f"{path.parent.name}{path.name}"
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(path.read_bytes())
    except FileNotFoundError:  # another process was first
        return True
    except zlib.error:
        return False
    digest = hashlib.sha256(data) if len(name) == 64 else hashlib.sha1(data, usedforsecurity=False)
    return reader.eof and not reader.unused_data and digest.hexdigest() == name


def _free_name(path: Path) -> Path:
    return next(p for n in itertools.count(1) if not (p := path.with_name(f"{path.name}-{n}")).exists())


def is_remote(repository: str) -> bool:
    """True for a URL and for `user@host:path`, False for a path."""
    return "://" in repository or re.match(r"[^/]+:", repository) is not None
