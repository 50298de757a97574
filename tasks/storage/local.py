"""The store on a folder: hard links for put-if-absent, renames under a file lock for the rest."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from cures_core.errors import ConfigError, CorruptArtifact, CuresError, StoreUnavailable
from cures_core.failures import machine_failure
from cures_core.files import canonical_json, sync_folder, write_atomic
from cures_core.manifest import MANIFEST, verify_manifest, write_manifest
from cures_core.names import check_key
from tasks.storage.folders import Stamps, check_folder, check_sizes, parse_manifest, sizes_below, stamps_below
from tasks.storage.leftovers import owned_name, remove, sweep

_CLOCK_GRAIN_NS = 50_000_000
_LOCK_WAIT_S = 30.0


class LocalStore:
    """See `Store`. Works for any number of processes on one machine or on a file system with POSIX locks and links.

    Unfinished writes lie in `.tmp` (swept when their process is gone; where nobody can tell, when they are older than
    an hour), locks in `.locks`, and in `.stamps` what published files looked like to the file system when their bytes
    were last read; all are the store's own.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()
        self._swept = False

    def get(self, key: str) -> bytes | None:
        path = self._path(key)
        with _explaining(path):
            try:
                return path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with self._written(path, data) as scratch, self._locked(key):
            scratch.replace(path)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        if path.exists():
            return False
        with self._written(path, data) as scratch:
            try:
                path.hardlink_to(scratch)
            except FileExistsError:
                return False
        return True

    def compare_and_swap(self, key: str, expected: bytes | None, data: bytes) -> bool:
        if expected is None:
            return self.put_if_absent(key, data)
        path = self._path(key)
        with self._written(path, data) as scratch, self._locked(key):
            if self.get(key) != expected:
                return False
            scratch.replace(path)
        return True

    def delete(self, prefix: str) -> None:
        path = self._path(prefix)
        with _explaining(path), self._locked(prefix):
            if not path.exists():
                return
            self._forget_stamps(prefix)
            trash = self._scratch_path()
            path.rename(trash)  # at once, so that nobody finds half a folder
            sync_folder(path.parent)
        remove(trash)

    def list(self, prefix: str) -> Iterator[str]:
        found: list[str] = []
        with _explaining(self._path(prefix)):
            # Path.rglob does not bear that others delete folders meanwhile.
            for folder, inner, names in os.walk(self._path(prefix), onerror=_unless_gone):
                inner[:] = (name for name in inner if not name.startswith("."))
                paths = (Path(folder, name) for name in names if not name.startswith("."))
                found += (path.relative_to(self.root).as_posix() for path in paths if path.is_file())
        yield from sorted(found)

    def publish_files(self, prefix: str, folder: Path) -> str:
        target = self._path(prefix)
        check_folder(folder)
        with _explaining(target, sum(sizes_below(folder).values())):
            digest = _seal(folder)
            if self._holds(prefix, digest):
                return digest
            scratch = self._moved_in(folder)
            _make_folder(target.parent)
            self.delete(prefix)  # left by a process that died before its record: the work was done again, it is void
            scratch.rename(target)
            sync_folder(target.parent)
            self._note_stamps(prefix, stamps_below(target))
        return digest

    def verify_files(self, prefix: str, manifest: str | None = None, *, deep: bool = True) -> None:
        folder = self._path(prefix)
        place = str(folder)
        with _explaining(folder):
            raw = self.get(f"{prefix}/{MANIFEST}")
            try:
                check_sizes(parse_manifest(raw, place, manifest), sizes_below(folder), place)
                stamps = stamps_below(folder)
                if deep or canonical_json(stamps) != self._noted_stamps(prefix):
                    self._forget_stamps(prefix)
                    verify_manifest(folder)
                    self._note_stamps(prefix, stamps)
            except FileNotFoundError as error:  # as where it was deleted before the look
                raise CorruptArtifact(
                    f"{place}: is being deleted by somebody else ({error.filename} is gone)"
                ) from error

    def local_path(self, prefix: str) -> Path:
        folder = self._path(prefix)
        if not folder.is_dir():
            raise CorruptArtifact(f"{folder}: no such folder. The record that names it is void: run its stage again")
        return folder

    @contextlib.contextmanager
    def scratch_folder(self, needed: int = 0) -> Iterator[Path]:
        """A folder in the store for files that are to be published; gone afterwards. `needed`: bytes, for messages."""
        with _explaining(self.root, needed):
            folder = self._scratch_path()
            folder.mkdir()
            try:
                yield folder
            finally:
                remove(folder)

    def _stamps_of(self, prefix: str) -> Path:
        return self.root / ".stamps" / f"{check_key(prefix)}.json"

    def _forget_stamps(self, prefix: str) -> None:
        with contextlib.suppress(OSError):  # a store that can only be read can be read
            shutil.rmtree(self.root / ".stamps" / prefix, ignore_errors=True)
            self._stamps_of(prefix).unlink(missing_ok=True)

    def _noted_stamps(self, prefix: str) -> bytes | None:
        try:
            return self._stamps_of(prefix).read_bytes()
        except OSError:
            return None

    def _note_stamps(self, prefix: str, stamps: Stamps) -> None:
        """Remember that the bytes of these files were right. Best effort: without stamps they are read again.

        A file that changed just now could change once more without another time: its stamp would tell nothing.
        """
        newest = max((changed for _, _, changed, _ in stamps.values()), default=0)
        if time.time_ns() - newest < _CLOCK_GRAIN_NS:
            return
        with contextlib.suppress(OSError):
            write_atomic(self._stamps_of(prefix), canonical_json(stamps))

    def _holds(self, prefix: str, digest: str) -> bool:
        try:
            self.verify_files(prefix, digest)
        except CorruptArtifact:
            return False
        return True

    def _moved_in(self, folder: Path) -> Path:
        """The folder under a scratch name in the store: moved, or copied from another file system."""
        scratch = self._scratch_path()
        try:
            return folder.rename(scratch)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        try:
            _copy(folder, scratch)
            _seal(scratch)
        except OSError:
            remove(scratch)
            raise
        return scratch

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _scratch_path(self) -> Path:
        folder = self.root / ".tmp"
        _make_folder(folder)
        if not self._swept:
            self._swept = True
            sweep(folder)
        return folder / owned_name()

    @contextlib.contextmanager
    def _written(self, path: Path, data: bytes) -> Iterator[Path]:
        """A durable scratch file with `data`, gone afterwards; `path`'s folder exists, and is flushed at the end."""
        with _explaining(path, len(data)):
            _make_folder(path.parent)
            scratch = self._scratch_path()
            try:
                with scratch.open("xb") as f:
                    f.write(data)
                    f.flush()
                    os.fsync(f.fileno())
                yield scratch
                sync_folder(path.parent)
            finally:
                scratch.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Exclusive over all processes and threads; released by the kernel if the holder dies."""
        path = self.root / ".locks" / hashlib.sha256(key.encode()).hexdigest()[:2]
        _make_folder(path.parent)
        with path.open("a+") as f:
            deadline = time.monotonic() + _LOCK_WAIT_S
            while not _try_lock(f.fileno()):
                if time.monotonic() > deadline:
                    f.seek(0)
                    raise StoreUnavailable(
                        f"{path}: locked for {_LOCK_WAIT_S:.0f} s by process {f.read().strip() or 'unknown'} while "
                        f"{key} was to be written. If that process is stopped, continue or end it, then retry"
                    )
                time.sleep(0.005)
            f.truncate(0)
            f.write(f"{os.getpid()}\n")
            f.flush()
            yield


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _copy(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.rglob("*"):  # shutil.copytree hides why it fails
        if path.is_file():
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _seal(folder: Path) -> str:
    """Make everything below a folder durable, the manifest last; returns the manifest's digest."""
    for inner in (p for p in folder.rglob("*") if p.is_dir()):
        sync_folder(inner)
    return write_manifest(folder)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents, each entry durable."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


@contextlib.contextmanager
def _explaining(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn the operating system's refusals into errors with a remedy."""
    try:
        yield
    except CuresError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreUnavailable(
                f"{path}: the disk is full, {needed:,} bytes are needed and {_free(path):,} are free. Make room there, "
                f"then resume the run; nothing half-written is left and nothing committed is lost"
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EISDIR):
            raise ConfigError(f"{path}: one name for a value and for a folder of values. Use another key") from error
        raise machine_failure(error, path) or error from error


def _free(path: Path) -> int:
    return shutil.disk_usage(next(p for p in (path, *path.absolute().parents) if p.exists())).free
