"""Knows the names a prompt file can have: a path, `path@revision` of git or DVC, an object `s3://bucket/key`.

What is not here is fetched once for each version (commit, ETag) into a folder whose entries are named by the SHA-256 of
their content, so that the same bytes are read again whatever becomes of the branch or the object.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError, DataRejected, MissingInput, TryAgain
from cures_core.files import canonical_json, digest_json, write_atomic
from cures_core.names import check_part, inside
from cures_core.prompts.lines import Snapshot
from tasks.inputs.builtin import ensure_builtin
from tasks.inputs.revisions import commit_of, file_at
from tasks.storage.leftovers import owned_name, sweep
from tasks.storage.s3_client import S3, AnswerError, split_url

_log = logging.getLogger(__name__)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_OBJECTS = 10_000
"""More files than a saved dataset has: a prefix with more of them is none."""


def is_elsewhere(name: str) -> bool:
    """Is it an object or a revision, and not a path? A file whose own name holds an @ is a path."""
    return bool(_SCHEME.match(name)) or (not Path(name).exists() and _at_revision(name) is not None)


class Inputs:
    """Finds prompt files by name. `pinned`: SHA-256 of the content that a name stands for, whatever it names now."""

    def __init__(self, folder: Path, endpoint_url: str | None = None, pinned: Mapping[str, str] | None = None) -> None:
        self._folder, self._endpoint_url, self._pinned = folder, endpoint_url, dict(pinned or {})

    @classmethod
    def of(cls, config: RunConfig, pinned: Mapping[str, str] | None = None) -> Inputs:
        """Those of a run: fetched files lie beside its scratch work, S3 is where its store would be."""
        return cls(Path(config.store.folder) / "inputs", config.store.endpoint_url, pinned)

    def local(self, name: str) -> Path:
        """A path of this machine that holds what `name` stands for; built-in sets are made where they are missing.

        Raises `MissingInput` (no such object or revision), `ConfigError` (unknown scheme, credentials refused, pinned
        content that is gone), `StoreUnavailable`, and `TryAgain` where the object changes while it is fetched.
        """
        if not is_elsewhere(name):
            ensure_builtin(Path(name))
            return Path(name)
        _last_part(name)  # refuses a name that is none before anything is asked for it
        wanted = self._pinned.get(name)
        if wanted is not None and (found := self._kept(name, wanted)):
            return found
        version, fetch = self._version(name)
        note = self._folder / "versions" / f"{digest_json([name, self._endpoint_url, version])[:32]}.json"
        if wanted is None and (noted := _noted(note)) and (found := self._kept(name, noted)):
            return found
        digest, path = self._keep(name, fetch)
        write_atomic(note, canonical_json({"name": name, "version": version, "sha256": digest}))
        if wanted not in (None, digest):
            raise ConfigError(f"{name}: has changed since it was read first ({wanted[:12]} then, {digest[:12]} now)")
        return path

    def _kept(self, name: str, digest: str) -> Path | None:
        """The fetched file with this content, None where there is none or it is damaged. Nothing is changed: whoever
        asks may hold no lease, and another process may read there."""
        if not _DIGEST.fullmatch(digest):
            return None  # it names a folder
        path = self._folder / digest[:32] / _last_part(name)
        if not path.exists():
            return None
        return path if Snapshot.of(path).digest == digest else None

    def _keep(self, name: str, fetch: Callable[[Path], None]) -> tuple[str, Path]:
        self._folder.mkdir(parents=True, exist_ok=True)
        sweep(self._folder, ".fetch-*")
        with tempfile.TemporaryDirectory(prefix=f".fetch-{owned_name()}-", dir=self._folder) as scratch:
            fetched = Path(scratch) / _last_part(name)
            fetch(fetched)
            digest = Snapshot.of(fetched).digest
            path = self._folder / digest[:32] / fetched.name
            if self._kept(name, digest) is None:
                if path.exists():
                    _set_aside(path.parent)
                path.parent.mkdir(exist_ok=True)
                try:
                    fetched.rename(path)
                except OSError:
                    if self._kept(name, digest) is None:
                        raise
                    # another process has fetched the same folder meanwhile
        return digest, path

    def _version(self, name: str) -> tuple[str, Callable[[Path], None]]:
        """(what tells this version from others, how to fetch it)."""
        if revision := _at_revision(name):
            path, commit = revision[0], commit_of(revision[1])
            return commit, lambda out: _taken_from_git(commit, path, out)
        return self._object_version(name)

    def _object_version(self, name: str) -> tuple[str, Callable[[Path], None]]:
        scheme = _SCHEME.match(name)
        bucket, key = split_url(name)
        if scheme is None or scheme[1] != "s3" or not bucket or not key:
            raise ConfigError(f"{name}: name a file, path@revision, or an object as s3://bucket/key")
        s3 = S3(f"s3://{bucket}", self._endpoint_url)
        try:
            etag = s3.etag(key)
        except AnswerError:
            etags = _etags_below(s3, name, key)
            return digest_json(etags), lambda out: _download_folder(s3, key, etags, out)
        return etag, lambda out: _download(s3, key, etag, out)


def _set_aside(folder: Path) -> None:
    """Give the folder of a damaged copy another name, now that a whole one has been fetched; it is never deleted."""
    names = (folder.with_name(f"{folder.name}.damaged-{n}") for n in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    with contextlib.suppress(FileNotFoundError):  # another process was first
        folder.rename(aside)
        _log.warning("%s: not what was fetched; it is %s now", folder, aside.name)


def _at_revision(name: str) -> tuple[str, str] | None:
    """(path, revision) of `path@revision`."""
    path, mark, revision = name.rpartition("@")
    return (path, revision) if mark and path and revision and not _SCHEME.match(name) else None


def _noted(note: Path) -> str:
    """The digest that a version was noted with; empty where there is no note, or none that can be read."""
    try:
        return str(json.loads(note.read_bytes())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _last_part(name: str) -> str:
    path = revision[0] if (revision := _at_revision(name)) else name
    return check_part(Path(path).name, name)


def _taken_from_git(commit: str, path: str, out: Path) -> None:
    file_at(commit, path, out)


def _etags_below(s3: S3, name: str, key: str) -> dict[str, str]:
    """ETags of the files of a folder that `datasets` saved, or of Parquet files."""
    found = s3.sizes(key)
    if f"{key}/state.json" not in found and not any(part.endswith(".parquet") for part in found):
        raise MissingInput(f"{name}: no such object, and no folder with a dataset; check bucket and key")
    if len(found) > _MAX_OBJECTS:
        raise DataRejected(f"{name}: {len(found):,} objects are not one dataset; name the folder of one")
    parts = [part.removeprefix(f"{key}/") for part in sorted(found) if not part.endswith("/")]
    _check_parts(parts, name)
    return {part: s3.etag(f"{key}/{part}") for part in parts}


def _check_parts(parts: Sequence[str], name: str) -> None:
    """Can all objects of a folder be files of one? Asked before the first is fetched; `DataRejected` where not."""
    folders = {parent for part in parts for parent in inside(Path(), part, name, DataRejected).parents}
    if both := sorted(part for part in parts if Path(part) in folders):
        raise DataRejected(f"{name}: {both[0]} is an object and a folder of objects; rename one of the two")


def _download_folder(s3: S3, key: str, etags: Mapping[str, str], out: Path) -> None:
    for part, etag in etags.items():
        path = inside(out, part, s3.url(key), DataRejected)
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(s3, f"{key}/{part}", etag, path)


def _download(s3: S3, key: str, etag: str, out: Path) -> None:
    try:
        s3.fetch(key, etag, out)
    except AnswerError as error:
        raise TryAgain(f"{s3.url(key)}: was replaced or removed while it was fetched; try again") from error
