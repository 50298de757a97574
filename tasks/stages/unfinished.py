"""What a broken-off epoch leaves in the store: its newest checkpoint, so that a machine with an empty disk goes on.

A checkpoint is sent from a thread while training goes on, and counts once its manifest is there. While the store is
away the newest one waits on this machine's disk; older ones that were not sent are skipped.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cures_core.checkpoints.in_epoch import SPOILT, is_whole
from cures_core.config.base import Strict
from cures_core.config.fork import Fork
from cures_core.errors import ConfigError, CorruptArtifact, CuresError
from cures_core.files import digest_file, found_below
from cures_core.manifest import MANIFEST
from tasks.runs.figures import EpochFigures
from tasks.runs.notes import stage_record
from tasks.runs.opening import scratch_root, started_config
from tasks.runs.records import RunRef
from tasks.stages.workspace import unfinished_prefix
from tasks.storage import LocalStore, Store
from tasks.storage.lease import Lease
from tasks.storage.s3_client import hurry
from tasks.storage.values import aside_command, decode_value, encode_value

_log = logging.getLogger(__name__)
_POLL_S = 1.0


class Spoilt(Strict):
    """`unfinished/<stage>/<key>/spoilt.json`, and what the job leaves in its scratch folder."""

    step: int
    """From this one on checkpoints are no place to go on from with other settings."""


@contextmanager
def checkpoints_in_store(store: Store, prefix: str, writer: str, scratch: Path, afresh: str) -> Iterator[None]:
    """Fetch the newest whole checkpoint below `prefix` into `scratch`, unless one as new is there; send new ones during
    the block.

    `writer` tells writers apart. If the block fails, or is stopped, the last checkpoint is sent before this returns.
    For a store in a folder nothing is done: scratch folders lie in it. Raises `CorruptArtifact` where there are
    checkpoints below `prefix` and none is whole, there or in `scratch`; it says `afresh`, what a person types to begin
    without any.
    """
    if isinstance(store, LocalStore):
        yield
        return
    _fetch(store, prefix, scratch, afresh)
    sender = _Sender(store, f"{prefix}/{writer}", scratch)
    sender.start()
    try:
        yield
    except BaseException as error:
        hurry(error)
        sender.close()
        sender.send()
        raise
    sender.close()


def note_spoilt(store: Store, scratch: Path, prefix: str) -> None:
    """Tell whoever comes after, on whatever machine, from which step on the weights of an epoch that diverged are
    spoilt, where its job says so."""
    said = scratch / SPOILT
    if said.is_file():
        found = decode_value(Spoilt, said.read_bytes(), str(said), "To have it written again, resume the run")
        store.put(f"{prefix}/{SPOILT}", encode_value(found))


def spoilt_from(store: Store, stage: str, key: str) -> int | None:
    """What `note_spoilt` has told of an unfinished stage. Raises `CorruptArtifact`."""
    return read_spoilt(store, f"{unfinished_prefix(stage, key)}/{SPOILT}")


def read_spoilt(store: Store, place: str) -> int | None:
    """The step that a note names; None where there is none. Raises `CorruptArtifact`."""
    noted = store.get(place)
    remedy = f"To go on from any checkpoint, spoilt or not: {aside_command(place)}"
    return None if noted is None else decode_value(Spoilt, noted, place, remedy).step


def checkpoints_of(store: Store, run: RunRef, stage: str, key: str) -> Iterator[Path]:
    """The checkpoints that an unfinished stage has left on this machine or in the store, newest first, without those
    that are known to be spoilt. Those of this machine are not verified: one of the store of the same step follows."""
    prefix, spoilt = unfinished_prefix(stage, key), spoilt_from(store, stage, key)
    found: list[tuple[str, Path | str]] = [
        *((path.name, path) for path in found_below(scratch_root(run) / stage / key, "*/scratch/step-*")),
        *((_step_name(place), place) for place in _places(store, prefix)),
    ]
    for name, place in sorted(found, key=lambda named: named[0], reverse=True):
        if spoilt is not None and name >= f"step-{spoilt:06d}":
            continue
        try:
            yield place if isinstance(place, Path) else store.local_path(place)
        except CorruptArtifact as error:
            _log.warning("checkpoint in the store passed over: %s", error)


def keep_beginning(store: Store, run: RunRef) -> None:
    """Copy into the store the checkpoint that a fork begins at, unless it is there or the epoch that begins there is
    done: the run that it goes on from keeps it for as long only as it needs it itself. Without it `begin_at` fails.

    Raises `LeaseHeld` while that run goes on.
    """
    begun = run.config.fork
    if begun is None or not begun.checkpoint or store.get(f"{kept_place(begun.checkpoint)}/{MANIFEST}") is not None:
        return
    if stage_record(store, run.name, EpochFigures, str(begun.epoch + 1)) is not None:
        return
    with contextlib.closing(Lease(store, begun.run, run.config.store.lease_ttl_s)):
        if (folder := next(_beginnings(store, run, begun), None)) is not None:
            keep(store, folder)


def _beginnings(store: Store, run: RunRef, begun: Fork) -> Iterator[Path]:
    """Where the checkpoint that a fork begins at lies on this machine or in the store, as far as runs have left it."""
    name, configs = f"step-{begun.step:06d}", [run.config]
    with contextlib.suppress(ConfigError, CorruptArtifact):  # the other run may have had another scratch folder
        configs.append(started_config(store, begun.run))
    for config in configs:
        root = scratch_root(run.model_copy(update={"config": config}))
        for folder in found_below(root, f"{EpochFigures.stage}/*/*/scratch/{name}"):
            if digest_file(folder / MANIFEST) == begun.checkpoint:
                yield folder
    for place in _places(store, f"unfinished/{EpochFigures.stage}"):
        listed = store.get(f"{place}/{MANIFEST}") if _step_name(place) == name else None
        if listed is not None and hashlib.sha256(listed).hexdigest() == begun.checkpoint:
            with contextlib.suppress(CorruptArtifact):
                yield store.local_path(place)


def keep(store: Store, folder: Path) -> str:
    """Copy a checkpoint into the store under its digest, for a fork that begins there; returns the digest."""
    digest = digest_file(folder / MANIFEST)
    with tempfile.TemporaryDirectory(prefix="cures-fork-") as scratch:
        copy = Path(scratch) / "checkpoint"
        shutil.copytree(folder, copy)
        store.publish_files(kept_place(digest), copy)
    return digest


def begin_at(store: Store, begun: Fork, scratch: Path) -> None:
    """Lay the checkpoint that a fork begins at into `scratch`, as if the stage had written it itself, unless it has
    come further.

    Raises `CorruptArtifact` where the store does not have it any more.
    """
    if any(scratch.glob("step-*")):
        return
    place = kept_place(begun.checkpoint)
    try:
        store.verify_files(place, begun.checkpoint)
    except CorruptArtifact as error:
        raise CorruptArtifact(f"{error}. To begin elsewhere: {fork_anew(place, begun.run)}") from error
    fetched = scratch / ".fetched"
    shutil.rmtree(fetched, ignore_errors=True)
    shutil.copytree(store.local_path(place), fetched)
    fetched.rename(scratch / f"step-{begun.step:06d}")


def fork_anew(place: str, run: str) -> str:
    """What a person types where the kept checkpoint at `place`, of `run`, is damaged."""
    return f"{aside_command(place)} (if it is there), then fork the run anew: cures run --resume {run} --set ..."


def kept_place(digest: str) -> str:
    """Where `keep` puts a checkpoint."""
    return f"forks/{digest}"


def _places(store: Store, prefix: str) -> list[str]:
    """Whole checkpoints below a prefix of the store."""
    return [key.removesuffix(f"/{MANIFEST}") for key in store.list(prefix) if key.endswith(f"/{MANIFEST}")]


def _fetch(store: Store, prefix: str, scratch: Path, afresh: str) -> None:
    """A damaged or half-removed checkpoint, here or there, is passed over for an older one."""
    if not (places := sorted(_places(store, prefix), key=_step_name, reverse=True)):
        return
    here = next((path for path in sorted(scratch.glob("step-*"), reverse=True) if is_whole(path)), None)
    for place in places:
        if here is not None and here.name >= _step_name(place):
            return
        try:
            source = store.local_path(place)
        except CorruptArtifact as error:
            _log.warning("checkpoint in the store passed over: %s", error)
            continue
        fetched = scratch / ".fetched"
        shutil.rmtree(fetched, ignore_errors=True)
        shutil.copytree(source, fetched)
        shutil.rmtree(scratch / _step_name(place), ignore_errors=True)  # it is damaged
        fetched.rename(scratch / _step_name(place))
        return
    if here is None:
        raise CorruptArtifact(
            f"{prefix}: none of {len(places)} checkpoints in the store is intact, nor one in {scratch}. To begin this "
            f"stage afresh: {afresh}"
        )


class _Sender(threading.Thread):
    """Sends the newest checkpoint of `scratch` below `place`, and removes those it has sent before."""

    def __init__(self, store: Store, place: str, scratch: Path) -> None:
        super().__init__(name=f"checkpoints to {place}", daemon=True)
        self._store, self._place, self._scratch = store, place, scratch
        self._sent = ""
        self._damaged = 0
        """When the folder was made that is not to be sent, in nanoseconds."""
        self._closing = threading.Event()

    def run(self) -> None:
        while not self._closing.wait(_POLL_S):
            self.send()

    def close(self) -> None:
        """Send nothing more, except by calling `send`."""
        self._closing.set()
        self.join()

    def send(self) -> None:
        """An epoch does not fail because its spare copy could not be made: the next one is tried."""
        newest = max(self._scratch.glob("step-*"), default=None)
        if newest is None or newest.name == self._sent:
            return
        try:
            if (made := newest.stat().st_ctime_ns) == self._damaged:
                return
            copy = _linked(newest, self._scratch / ".sending")
            if not is_whole(copy):  # it would get a manifest that fits it
                self._damaged = made
                return
            self._store.publish_files(f"{self._place}/{newest.name}", copy)
            if self._sent:
                self._store.delete(f"{self._place}/{self._sent}")
            self._sent = newest.name
        except (CuresError, OSError) as error:  # OSError: the epoch has removed it meanwhile
            _log.warning("%s was not sent to the store: %s", newest.name, error)


def _step_name(place: str) -> str:
    return place.rsplit("/", 1)[-1]


def _linked(folder: Path, target: Path) -> Path:
    """The same files under another name, which outlive the removal of `folder` and take no room."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target, copy_function=os.link)
    return target
