"""Everything that a store holds, read and checked by its content: what is damaged or gone, and what mends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from cures_core.config.base import Strict
from cures_core.config.storage import StoreConfig
from cures_core.errors import ConfigError, CorruptArtifact, CuresError, MissingInput
from cures_core.jobs.kept import unsealed
from cures_core.manifest import MANIFEST
from tasks.registry.history import Entry, existing_pointer, model_names, pointer_key
from tasks.registry.weights import weights_fault
from tasks.runs.again import again_place, times_again
from tasks.runs.figures import Figures, SnapshotFigures
from tasks.runs.notes import (
    read_change,
    read_note,
    read_started,
    require_run,
    run_names,
    run_status,
    started_place,
    status_place,
)
from tasks.runs.opening import snapshot_places
from tasks.runs.records import Record, has_figures, read_any, record_place, verify_record
from tasks.snapshots import read_snapshot
from tasks.snapshots.published import PARTS, published_file, published_names, published_numbers
from tasks.storage import Store, open_store
from tasks.storage.fencing import parse

T = TypeVar("T")


class Finding(Strict):
    """Something that is not as it was written."""

    place: str
    """Key in the store, or the tag of a snapshot."""
    fault: str
    """What is wrong with it."""
    remedy: str
    """The command that mends it, or what to do where there is none."""


class Verified(Strict):
    """What was looked at, and what was found."""

    checked: dict[str, int]
    """Numbers of things that were read, by kind."""
    damaged: tuple[Finding, ...]
    """In the order in which they were found."""
    aside: tuple[str, ...]
    """Keys of damaged values that were replaced and are kept for whoever wants to look at them."""


def verify(cfg: StoreConfig, runs: Iterable[str] | None = None) -> Verified:
    """Read all that belongs to these runs, or (None) all that the store holds: values by their seals, files by their
    SHA-256, pointers by the weights that they name, snapshots by the objects of their DVC remote.

    Raises `ConfigError` for a run that is not there.
    """
    store = open_store(cfg)
    look = _Look(store, cfg)
    for name in run_names(store) if runs is None else runs:
        look.run(name)
    look.models(None if runs is None else set(runs))
    if runs is None:
        look.whole_store()
    aside = tuple(store.list("damaged")) if runs is None else ()
    return Verified(checked=dict(look.checked), damaged=tuple(look.found), aside=aside)


class _Look:
    def __init__(self, store: Store, cfg: StoreConfig) -> None:
        self._store, self._cfg = store, cfg
        self.checked: Counter[str] = Counter()
        self.found: list[Finding] = []
        self._records: dict[str, Record[Figures] | None] = {}

    def run(self, name: str) -> None:
        require_run(self._store, name)
        again, first = f"cures run --resume {name}", "cures run --config PROFILE, as it was started"
        self._check("values", started_place(name), partial(self._started, name), first)
        self._check("values", status_place(name), partial(run_status, self._store, name), again)
        for place in list(self._store.list(f"runs/{name}/changes")):
            self._check(
                "values", place, partial(read_change, self._store, name, place), f"remove {place}, then {again}"
            )
        if self._store.get(again_place(name)) is not None:
            anew = f"remove {again_place(name)}, then {again} --from STAGE"
            self._check("values", again_place(name), partial(times_again, self._store, name), anew)
        for place in list(self._store.list(f"runs/{name}/stages")):
            note = self._check("values", place, partial(read_note, self._store, name, place), again)
            record = None if note is None else self.record(f"{note['stage']}/{note['key']}", again)
            if record is not None and has_figures(record, SnapshotFigures):
                self._snapshot(record.figures.tag, name)

    def record(self, record_id: str, remedy: str) -> Record[Figures] | None:
        """Check a record, its files and its parents, once; None where something is wrong with it."""
        if record_id in self._records:
            return self._records[record_id]
        stage, _, key = record_id.partition("/")
        record = self._check("records", record_place(stage, key), partial(self._record, stage, key), remedy)
        if record is not None and record.files is not None:
            files = partial(self._files, record)
            record = self._check("files", record.files, files, remedy)
        self._records[record_id] = record
        for parent in () if record is None else record.parents:
            self.record(parent, remedy)
        return record

    def models(self, runs: set[str] | None) -> None:
        for name in model_names(self._store):
            remedy = f"cures promote RUN --model {name} --override --why ..."
            found = self._check("pointers", pointer_key(name), partial(existing_pointer, self._store, name), remedy)
            for entry in () if found is None else found[1].history:
                if runs is None or entry.run in runs:
                    self._version(name, entry)

    def _version(self, model: str, entry: Entry) -> None:
        """What a version of a model points to: damage of the records themselves is told once, as theirs."""
        for record_id in (entry.state, entry.policy, entry.evaluation):
            self.record(record_id, f"cures run --resume {entry.run}")
        if self._records[entry.state] is not None and (fault := weights_fault(self._store, entry)):
            place = f"{pointer_key(model)}, version {entry.version}"
            self.found.append(Finding(place=place, fault=_fault(fault), remedy=f"cures promote {entry.run}"))

    def whole_store(self) -> None:
        """What no run's notes lead to."""
        for place in list(self._store.list("stages")):
            self.record(place.removeprefix("stages/").removesuffix(".json"), f"remove {place}: no run uses it")
        for place in list(self._store.list("evaluations")):
            self._check("evaluations", place, partial(self._rows, place), f"remove {place}: it can be made again")
        for place in list(self._store.list("unfinished")):
            if place.endswith(f"/{MANIFEST}"):
                prefix = place.removesuffix(f"/{MANIFEST}")
                again = "nothing to do: the run goes on from the checkpoint before"
                self._check("unfinished checkpoints", prefix, partial(self._store.verify_files, prefix), again)
        for place in list(self._store.list("forks")):
            if place.endswith(f"/{MANIFEST}"):
                prefix = place.removesuffix(f"/{MANIFEST}")
                anew = "cures run --resume RUN --set ..., to fork the run anew that it was taken from"
                self._check("checkpoints of forks", prefix, partial(self._store.verify_files, prefix), anew)
        for place in list(self._store.list("leases")):
            name = place.removeprefix("leases/").removesuffix(".json")
            self._check("leases", place, partial(parse, self._store, name), f"remove {place} if nobody works on it")

        for name in published_names(self._store):
            for number in published_numbers(self._store, name):
                self._published(name, number)

    def _published(self, name: str, number: int) -> None:
        again = "publish the same posterior again (cures posterior publish)"
        for part in PARTS:
            place = f"published/{name}/{number}/{part}"
            self._check("published", place, partial(published_file, self._store, name, number, part), again)
        self._snapshot(f"posterior/{name}/{number}", name)

    def _snapshot(self, tag: str, run: str) -> None:
        self.checked["snapshots"] += 1
        try:
            read_snapshot(tag, snapshot_places(self._cfg, run))
            return
        except MissingInput as error:
            fault, remedy = _fault(str(error)), f"cures run --resume {run}"
        except CorruptArtifact as error:
            fault, remedy = _fault(str(error)), f"cures posterior restore {tag}"
        except CuresError as error:
            fault, remedy = f"could not be checked: {error}", "see that the place answers, then verify again"
        self.found.append(Finding(place=tag, fault=fault, remedy=remedy))

    def _started(self, name: str) -> object:
        try:
            return read_started(self._store, name)
        except ConfigError as error:
            raise CorruptArtifact(f"{started_place(name)}: is gone") from error

    def _record(self, stage: str, key: str) -> Record[Figures]:
        record = read_any(self._store, stage, key)
        if record is None:
            raise CorruptArtifact(f"{record_place(stage, key)}: is gone")
        return record

    def _files(self, record: Record[Figures]) -> Record[Figures]:
        verify_record(self._store, record)
        return record

    def _rows(self, place: str) -> None:
        if unsealed(self._store.get(place) or b"") is None:
            raise CorruptArtifact(f"{place}: its bytes are not those that were written")

    def _check(self, kind: str, place: str, read: Callable[[], T], remedy: str) -> T | None:
        self.checked[kind] += 1
        try:
            return read()
        except CorruptArtifact as error:
            self.found.append(Finding(place=place, fault=_fault(str(error)), remedy=remedy))
            return None


def _fault(text: str) -> str:
    """The message without its remedy, which has a column of its own."""
    return text.partition(". To ")[0]
