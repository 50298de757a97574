"""Where stages keep unfinished work: a folder for each holder of a stage, taken over by the next, swept when void.

`scratch/<stage>/<key>/<token>-<run>/`, the token being that of the stage's lease: two holders never share a folder. A
former holder that still runs, because it was paused, finds its folder gone, and so does its job, which ends by it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cures_core.errors import CorruptArtifact, LeaseHeld
from cures_core.files import found_below
from tasks.runs.records import committed_any
from tasks.storage import Store
from tasks.storage.fencing import stage_lease
from tasks.storage.lease import Lease, is_free

_HOLDER = re.compile(r"(\d+)-(.+)")


@dataclass(frozen=True)
class Workspace:
    """Where a stage works: `scratch` survives a crash, `out` is what gets published, and below the prefix `unfinished`
    of the store may lie what another machine should find if this one is lost."""

    scratch: Path
    out: Path
    store: Store
    unfinished: str


def unfinished_prefix(stage: str, key: str) -> str:
    """Where the store keeps what a machine with an empty disk goes on from."""
    return f"unfinished/{stage}/{key}"


def take_over(root: Path, stage: str, key: str, token: int, run: str) -> Path:
    """The folder of the holder with `token`, with what the latest of the earlier holders has left."""
    place = root / stage / key
    mine = place / f"{token:06d}-{run}"
    mine.parent.mkdir(parents=True, exist_ok=True)
    earlier = sorted(path for path, held in _holders(place) if held < token)
    if earlier:
        earlier.pop().rename(mine)
    for path in earlier:
        shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(mine / "out", ignore_errors=True)
    for name in ("out", "scratch"):
        (mine / name).mkdir(parents=True, exist_ok=True)
    return mine


def clear(root: Path, stage: str, key: str) -> None:
    """Remove all that holders of a committed stage have left on this machine."""
    shutil.rmtree(root / stage / key, ignore_errors=True)


def sweep(store: Store, root: Path, ttl_s: float, run: str | None = None) -> None:
    """Remove what dead holders have left, here and in the store, of stages that are committed by now.

    `run` names a run that has ended well: what it has left of any other stage goes too, for it will not go on with it.
    A stage that somebody may be working on is let alone.
    """
    for stage, key, of_run in {*_on_disk(root), *_in_store(store)}:
        name = stage_lease(stage, key)
        if not is_free(store, name, ttl_s) or not (of_run == run or _is_done(store, stage, key)):
            continue
        try:
            lease = Lease(store, name, ttl_s)
        except LeaseHeld:  # somebody was faster
            continue
        try:
            clear(root, stage, key)
            store.delete(unfinished_prefix(stage, key))
        finally:
            lease.close()


def _is_done(store: Store, stage: str, key: str) -> bool:
    try:
        return committed_any(store, stage, key) is not None
    except CorruptArtifact:  # it is to be done again, perhaps from there
        return False


def _on_disk(root: Path) -> Iterator[tuple[str, str, str]]:
    """(stage, key, run that worked on it last) of all folders."""
    for place in (path for path in found_below(root, "*/*") if path.is_dir()):
        runs = [path.name.partition("-")[2] for path, _ in _holders(place)]
        yield place.parent.name, place.name, (runs or [""])[-1]


def _in_store(store: Store) -> Iterator[tuple[str, str, str]]:
    for key in store.list("unfinished"):
        if len(parts := key.split("/")) > 3:  # else it is none of ours
            yield parts[1], parts[2], parts[3].rpartition("-")[0]


def _holders(place: Path) -> list[tuple[Path, int]]:
    """Folders of a stage with their tokens, in order; none where its place is gone, which another run may just have
    swept."""
    try:
        paths = list(place.iterdir())
    except FileNotFoundError:
        return []
    found = ((path, _HOLDER.fullmatch(path.name)) for path in paths)
    return sorted((path, int(name[1])) for path, name in found if name is not None)
