"""Everything that a store holds, read and checked by its content: what is damaged or gone, and what mends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TypeVar

from cures_core.checkpoints.in_epoch import SPOILT
from cures_core.config.base import Strict
from cures_core.config.storage import StoreConfig
from cures_core.errors import CorruptArtifact, CuresError, MissingInput, StoreUnavailable
from cures_core.failures import explaining
from cures_core.manifest import MANIFEST
from tasks.ci.retraining import DECISIONS
from tasks.registry.history import Entry, existing_pointer, model_names, pointer_key, read_pointer
from tasks.registry.weights import weights_fault
from tasks.runs.again import again_place
from tasks.runs.aside import reader_of
from tasks.runs.figures import EpochFigures, Figures, PromoteFigures, ReportFigures, SnapshotFigures
from tasks.runs.notes import (
    Status,
    noted_epochs,
    read_note,
    read_started,
    require_run,
    run_names,
    run_status,
    started_place,
    status_place,
)
from tasks.runs.opening import FLOW_RUNS, fork_of, snapshot_places
from tasks.runs.orphans import orphans
from tasks.runs.records import Record, has_figures, read_any, record_place, verify_record
from tasks.snapshots import read_snapshot
from tasks.snapshots.pointers import DamagedReference
from tasks.snapshots.published import (
    PARTS,
    begun_numbers,
    published_about,
    published_file,
    published_names,
    published_place,
)
from tasks.stages.unfinished import fork_anew, kept_place
from tasks.storage import LocalStore, Store, open_store
from tasks.storage.values import aside_command

T = TypeVar("T")

_ANSWER = "see that the place answers, then verify again: cures runs verify --all"


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
    notes: tuple[Finding, ...] = ()
    """What is worth knowing and breaks nothing: earlier versions of a model that cannot be gone back to, leftovers,
    beginnings of forks and snapshots that are needed no more."""
    aside: tuple[str, ...]
    """Keys of damaged values that were replaced and are kept for whoever wants to look at them."""


def verify(cfg: StoreConfig, runs: Iterable[str] | None = None) -> Verified:
    """Read all that belongs to these runs, or (None) all that the store holds: values by their seals, files by their
    SHA-256, pointers by the weights that they name and by the promotions that have moved them, snapshots by the objects
    of their DVC remote.

    Raises `ConfigError` for a run that is not there, `StoreUnavailable` where the store does not answer; a file that
    a disk does not hand out is a finding.
    """
    store = open_store(cfg)
    look = _Look(store, cfg)
    for name in run_names(store) if runs is None else runs:
        look.run(name)
    look.models(None if runs is None else set(runs))
    if runs is None:
        look.whole_store()
    aside = tuple(store.list("damaged")) if runs is None else ()
    found, notes = tuple(look.found), tuple(look.notes)
    return Verified(checked=dict(look.checked), damaged=found, notes=notes, aside=aside)


class _Look:
    def __init__(self, store: Store, cfg: StoreConfig) -> None:
        self._store, self._cfg = store, cfg
        self.checked: Counter[str] = Counter()
        self.found: list[Finding] = []
        self.notes: list[Finding] = []
        self._records: dict[str, Record[Figures] | None] = {}
        self._tags: set[str] = set()
        self._promoted: dict[str, tuple[str, Record[PromoteFigures]]] = {}

    def run(self, name: str) -> None:
        require_run(self._store, name)
        again, first = f"cures run --resume {name}", "cures run --config PROFILE, as it was started"
        started = self._check("values", started_place(name), partial(read_started, self._store, name), first)
        status = self._check("values", status_place(name), partial(self._status, name), again)
        for place in list(self._store.list(f"runs/{name}/changes")):
            self._value("values", place, f", then {again}")
        if again_place(name) in self._store.list(f"runs/{name}"):
            self._value("values", again_place(name), f", then {again} --from STAGE")
        noted: dict[str, Record[Figures] | None] = {}
        places = list(self._store.list(f"runs/{name}/stages"))
        for place in places:
            note = self._check("values", place, partial(read_note, self._store, name, place), again)
            if note is None:
                continue
            record_id = f"{note['stage']}/{note['key']}"
            record = noted[record_id] = self.record(record_id, again)
            if record is not None and has_figures(record, SnapshotFigures):
                self._snapshot(record.figures.tag, name, again)
            if record is not None and has_figures(record, PromoteFigures) and record.figures.promoted:
                self._promoted.setdefault(record.id, (name, record))
        is_over = status is not None and status.status == "completed"
        if is_over and started is not None and started.purpose == "training" and len(noted) == len(places):
            self._unnoted(name, noted, again)

    def _unnoted(self, name: str, noted: Mapping[str, Record[Figures] | None], again: str) -> None:
        """A training that is over has a report, and a note of every record that the report stands on."""
        stages = {record_id.partition("/")[0] for record_id in noted}
        gone = [ReportFigures.stage] if EpochFigures.stage in stages and ReportFigures.stage not in stages else []
        for record in noted.values():
            if record is not None and has_figures(record, ReportFigures):
                gone += [parent for parent in record.parents if parent not in noted]
        for what in gone:
            fault = f"the note that the run used {what} is gone"
            self.found.append(Finding(place=f"runs/{name}/stages", fault=fault, remedy=again))

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
            found = self._check(
                "pointers", pointer_key(name), partial(existing_pointer, self._store, name), _anew(name)
            )
            for entry in () if found is None else found[1].history:
                if runs is None or entry.run in runs:
                    self._version(name, entry, is_current=found is not None and entry == found[1].current)
        for run, record in self._promoted.values():
            self._promotion(run, record)

    def _version(self, model: str, entry: Entry, *, is_current: bool) -> None:
        """What a version of a model points to: damage of the records themselves is told once, as theirs."""
        for record_id in (entry.state, entry.policy, entry.evaluation):
            self.record(record_id, f"cures run --resume {entry.run}")
        if self._records[entry.state] is None:
            return
        place = f"{pointer_key(model)}, version {entry.version}"
        fault = self._check("versions", place, partial(weights_fault, self._store, entry), f"cures promote {entry.run}")
        if not fault:
            return
        if is_current:
            self.found.append(Finding(place=place, fault=_fault(fault), remedy=f"cures promote {entry.run}"))
        else:  # history is not changed: what was promoted then is gone, whatever is promoted now
            remedy = "nothing to do: it cannot be gone back to; the current version is another"
            self.notes.append(Finding(place=place, fault=_fault(fault), remedy=remedy))

    def _promotion(self, run: str, record: Record[PromoteFigures]) -> None:
        """Does a model's history know of a promotion that a record tells of?"""
        model = record.figures.model
        try:
            _, pointer = read_pointer(self._store, model)
        except CuresError as error:  # told already
            self._unless_of_one_file(error)
            return
        key = pointer_key(model)
        if pointer is None:
            fault = f"is gone; the gate of run {run} has promoted a checkpoint under this name"
            self.found.append(Finding(place=key, fault=fault, remedy=_anew(model, run)))
        elif not any(_is_of(entry, record) for entry in pointer.history):
            fault = f"its history does not tell of the promotion by the gate of run {run}: it was begun anew since"
            self.notes.append(Finding(place=key, fault=fault, remedy=f"to have it there too: {_anew(model, run)}"))

    def whole_store(self) -> None:
        """What no run's notes lead to."""
        for place in list(self._store.list("stages")):
            anew = f"{aside_command(place)}: no run uses it"
            record = self.record(place.removeprefix("stages/").removesuffix(".json"), anew)
            if record is not None and has_figures(record, SnapshotFigures):
                self._superseded(record.figures.tag)
        for place in list(self._store.list("evaluations")):
            self._value("evaluations", place, ": it can be made again")
        for place in list(self._store.list("unfinished")):
            if place.endswith(f"/{MANIFEST}"):
                prefix = place.removesuffix(f"/{MANIFEST}")
                again = "nothing to do: the run goes on from the one before, or says what to type where there is none"
                self._check("unfinished checkpoints", prefix, partial(self._store.verify_files, prefix), again)
            elif place.endswith(f"/{SPOILT}"):
                self._value("values", place, ": then any checkpoint counts as one to go on from")
        self._beginnings()
        for place in list(self._store.list("leases")):
            self._value("leases", place, ", if nobody works on it")
        for place in list(self._store.list(FLOW_RUNS)):
            self._value("inputs of flow runs", place, ", or start another flow run")
        for place in list(self._store.list(DECISIONS)):
            self._value("retrainings", place, ", then trigger the retraining once more")
        for prefix in self._orphans():
            fault = "files that no record names: whoever published them did not live to commit or to delete them"
            self.notes.append(Finding(place=prefix, fault=fault, remedy="cures runs sweep"))
        for name in published_names(self._store):
            for number in begun_numbers(self._store, name):
                self._published(name, number)

    def _beginnings(self) -> None:
        """Checkpoints that forks begin at. One that no fork needs any more breaks nothing."""
        needed = self._needed_beginnings()
        kept = {"/".join(place.split("/")[:2]) for place in self._store.list("forks")}
        lost = {prefix for prefix in needed if not any(self._store.list(f"damaged/{prefix}"))}
        for prefix in sorted(kept | lost):
            if prefix in needed:
                into, remedy = self.found, fork_anew(prefix, needed[prefix])
            else:
                into, remedy = self.notes, f"{aside_command(prefix)}: no fork has to begin there any more"
            whole = partial(self._store.verify_files, prefix, prefix.partition("/")[2])
            self._check("checkpoints of forks", prefix, whole, remedy, into)

    def _needed_beginnings(self) -> dict[str, str]:
        """The kept checkpoints of forks whose first epoch is not done, with the runs that they go on from."""
        needed: dict[str, str] = {}
        for name in run_names(self._store):
            try:
                begun = fork_of(self._store, name)
                if begun is not None and begun.checkpoint:
                    done = noted_epochs(self._store, name, EpochFigures)
                    needed |= {} if begun.epoch + 1 in done else {kept_place(begun.checkpoint): begun.run}
            except ValueError:  # of a version whose configuration this one cannot read
                continue
            except CuresError as error:  # told already
                self._unless_of_one_file(error)
        return needed

    def _orphans(self) -> Iterator[str]:
        try:
            yield from orphans(self._store)
        except CuresError as error:  # of a record or lease that was told already
            self._unless_of_one_file(error)

    def _published(self, name: str, number: int) -> None:
        place = published_place(name, number)
        again = f"publish the same posterior again (cures posterior publish), or {aside_command(place)}"
        about = partial(published_about, self._store, name, number)
        if self._check("published", f"{place}/about.json", about, again) is None:
            return
        for part in PARTS:
            self._check("published", f"{place}/{part}", partial(published_file, self._store, name, number, part), again)
        tag = f"posterior/{name}/{number}"
        self._snapshot(tag, name, f"cures posterior restore {tag}")

    def _superseded(self, tag: str) -> None:
        """A snapshot that no note leads to, as of an epoch that was done again: other runs may have started from it."""
        self._snapshot(tag, tag.split("/")[1], "nothing to do: no run uses it", self.notes)

    def _snapshot(self, tag: str, name: str, again: str, lost: list[Finding] | None = None) -> None:
        """Once a tag. `name`: of the run, or what it was published under; `again`: what publishes it; `lost`: where a
        finding goes that it is gone."""
        if tag in self._tags:
            return
        self._tags.add(tag)
        self.checked["snapshots"] += 1
        try:
            places = snapshot_places(self._cfg, name)
        except CuresError as error:  # told already
            self._unless_of_one_file(error)
            return
        into = self.found
        try:
            with explaining():
                read_snapshot(tag, places)
            return
        except (MissingInput, DamagedReference) as error:
            fault, remedy, into = _fault(str(error)), again, into if lost is None else lost
        except CorruptArtifact as error:
            fault, remedy = _fault(str(error)), f"cures posterior restore {tag}"
        except CuresError as error:
            fault, remedy = f"could not be checked: {error}", _ANSWER
        into.append(Finding(place=tag, fault=fault, remedy=remedy))

    def _status(self, name: str) -> Status:
        status = run_status(self._store, name)
        if status.status == "unknown" and any(self._store.list(f"runs/{name}/stages")):
            raise CorruptArtifact(f"{status_place(name)}: is gone")  # it is there before the first stage begins
        return status

    def _record(self, stage: str, key: str) -> Record[Figures]:
        record = read_any(self._store, stage, key)
        if record is None:
            raise CorruptArtifact(f"{record_place(stage, key)}: is gone")
        return record

    def _files(self, record: Record[Figures]) -> Record[Figures]:
        verify_record(self._store, record)
        return record

    def _value(self, kind: str, place: str, then: str) -> None:
        """Check a value that nothing writes again. `then`: what follows on the command that sets it aside."""
        read = reader_of(self._store, place)
        if read is None:  # a name that this version does not give
            self.checked[kind] += 1
            fault = "has a name that this version does not give"
            self.notes.append(Finding(place=place, fault=fault, remedy="nothing to do: nobody reads it"))
        else:
            self._check(kind, place, read, aside_command(place) + then)

    def _check(
        self, kind: str, place: str, read: Callable[[], T], remedy: str, into: list[Finding] | None = None
    ) -> T | None:
        """What `read` returns; None, and a finding (`into`: where it goes), where it does not."""
        self.checked[kind] += 1
        try:
            return read()
        except CorruptArtifact as error:
            fault = _fault(str(error))
        except StoreUnavailable as error:
            self._unless_of_one_file(error)
            fault, remedy = f"could not be checked: {error}", _ANSWER
        except Exception as error:  # whatever it stumbles over, the rest is looked at too
            fault = f"cannot be read: {type(error).__name__}: {error}"
        (self.found if into is None else into).append(Finding(place=place, fault=fault, remedy=remedy))
        return None

    def _unless_of_one_file(self, error: CuresError) -> None:
        """Raise it where the whole store does not answer. Of a disk one sector may be bad, and the rest can be read."""
        if isinstance(error, StoreUnavailable) and not isinstance(self._store, LocalStore):
            raise error


def _anew(model: str, run: str = "RUN") -> str:
    """The command that begins a model's history anew."""
    return f"cures promote {run} --model {model} --override --why ..."


def _is_of(entry: Entry, record: Record[PromoteFigures]) -> bool:
    """Is it the move of the pointer that this record tells of?"""
    return entry.evaluation == record.inputs.get("after")


def _fault(text: str) -> str:
    """The message without its remedy, which has a column of its own."""
    return text.partition(". To ")[0]
