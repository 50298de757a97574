from __future__ import annotations

import datetime as dt
import errno
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.exceptions import TerminationSignal

from cures_core.config.fork import Fork
from cures_core.config.loading import load_config
from cures_core.errors import (
    ConfigError,
    CorruptArtifact,
    InjectedFault,
    LeaseHeld,
    LeaseLost,
    StoreUnavailable,
    TryAgain,
)
from cures_core.faults import arm
from cures_core.jobs.assemble import versions
from cures_core.machine import built_from, processor
from tasks.progress import StageEnded, StageStarted, listening
from tasks.runs.figures import Figures
from tasks.runs.notes import run_names, run_overview, stage_notes
from tasks.runs.opening import completed_run, open_run
from tasks.runs.records import RunRef, files_of
from tasks.runs.resume import resumed_config
from tasks.stages import stage as stage_module
from tasks.stages.stage import Made, NotCommitted, only_looking, read_made, run_stage
from tasks.stages.workspace import Workspace
from tasks.storage import open_store
from tasks.storage.fencing import encode, lease_key, parse, stage_lease
from tasks.storage.local import LocalStore
from tests.end_to_end.pipeline import write_profile
from tests.tasks.stages.figures import DemoFigures, OtherFigures


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunRef]:
    monkeypatch.chdir(tmp_path)
    with open_run(load_config(write_profile(tmp_path))) as ref:
        yield ref


class Work:
    """Writes a file and counts how often it was called."""

    def __init__(self, text: str = "hello", kind: type[Figures] = DemoFigures) -> None:
        self.calls, self._text, self.kind = 0, text, kind

    def __call__(self, space: Workspace) -> Made[Any]:
        self.calls += 1
        (space.scratch / "kept").touch()
        (space.out / "file.txt").write_text(self._text)
        return Made(self.kind(length=len(self._text)))


def test_the_same_inputs_are_worked_on_once(run: RunRef) -> None:
    work, events = Work(), []
    with listening(events.append):
        first = run_stage(run, DemoFigures, 1, {"a": 1}, [], work)
        second = run_stage(run, DemoFigures, 1, {"a": 1}, [], work)
    assert work.calls == 1
    assert first == second
    assert first.figures == DemoFigures(length=5)
    assert first.manifest
    assert [getattr(e, "cached", None) for e in events] == [None, False, None, True]
    assert [(type(e), e.stage) for e in events] == [(StageStarted, "demo"), (StageEnded, "demo")] * 2
    assert [e.record for e in events if isinstance(e, StageEnded)] == [first, second]
    assert (files_of(open_store(run.config.store), first) / "file.txt").read_text() == "hello"
    assert [(n["stage"], n["cached"]) for n in stage_notes(open_store(run.config.store), run.name)] == [("demo", True)]


@pytest.mark.parametrize("change", [{"inputs": {"a": 2}}, {"schema": 2}, {"kind": OtherFigures}])
def test_anything_that_is_read_makes_another_key(run: RunRef, change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"kind": DemoFigures, "schema": 1, "inputs": {"a": 1}, "parents": []}
    keys = [run_stage(run, **one, work=Work(kind=one["kind"])).key for one in (base, {**base, **change})]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("point", ["stage.start", "stage.before_files", "stage.before_record", "stage.after_record"])
def test_a_failure_anywhere_leaves_old_or_new(run: RunRef, point: str, tmp_path: Path) -> None:
    store = open_store(run.config.store)
    arm([f"{point}:demo-2=raise"], tmp_path / "faults")
    work = Work()
    try:
        with pytest.raises(InjectedFault):
            run_stage(run, DemoFigures, 1, {}, [], work, label="2")
        assert (sum(1 for _ in store.list("stages")) == 1) is (point == "stage.after_record")
        record = run_stage(run, DemoFigures, 1, {}, [], work, label="2")
    finally:
        arm([], tmp_path)
    assert work.calls == {"stage.start": 1, "stage.after_record": 1}.get(point, 2)
    assert (files_of(store, record) / "file.txt").read_text() == "hello"


def test_a_missing_file_is_made_again(run: RunRef) -> None:
    work = Work()
    record = run_stage(run, DemoFigures, 1, {}, [], work)
    (Path(run.config.store.url) / str(record.files) / "file.txt").unlink()
    again = run_stage(run, DemoFigures, 1, {}, [], work)
    assert work.calls == 2
    assert (files_of(open_store(run.config.store), again) / "file.txt").exists()


def test_changed_bytes_are_found_before_they_are_built_on(run: RunRef, caplog: pytest.LogCaptureFixture) -> None:
    store, work = open_store(run.config.store), Work()
    record = run_stage(run, DemoFigures, 1, {}, [], work)
    place = f"stages/demo/{record.key}.json"
    raw = store.get(place)
    path = Path(run.config.store.url) / str(record.files) / "file.txt"
    path.chmod(0o644)
    path.write_text("jello")
    with pytest.raises(CorruptArtifact, match=f"do this stage again: cures run --resume {run.name}"):
        files_of(store, record)
    run_stage(run, DemoFigures, 1, {}, [], work)
    assert work.calls == 2
    assert store.get(f"damaged/{place}-1") == raw
    kept = f"Doing the stage again; the record is kept as damaged/{place}-1, its files as they are"
    (told,) = (message for message in caplog.messages if "damaged" in message)
    assert told.endswith(kept)
    assert "file.txt" in told.removesuffix(kept)


def test_work_has_a_folder_of_its_own_and_a_place_for_another_machine(run: RunRef) -> None:
    seen: list[Workspace] = []

    def work(space: Workspace) -> Made[DemoFigures]:
        seen.append(space)
        return Made(DemoFigures(), {"device": "cpu"})

    record = run_stage(run, DemoFigures, 1, {"a": 1}, [], work)
    (space,) = seen
    assert isinstance(space.store, LocalStore)
    assert space.unfinished == f"unfinished/demo/{record.key}"
    assert space.scratch.parent == space.out.parent
    _, lease = parse(space.store, stage_lease("demo", record.key))
    assert lease is not None
    assert space.scratch.parent.name == f"{lease.token}-{run.name}"
    assert not space.scratch.exists()  # it is committed
    assert record.machine["device"] == "cpu"
    assert record.files is None


def test_what_lies_outside_the_store_is_asked_for(run: RunRef) -> None:
    work, there = Work(), iter([False, True])
    first = run_stage(run, DemoFigures, 1, {}, [], work, still_there=lambda _: next(there))
    again = run_stage(run, DemoFigures, 1, {}, [], work, still_there=lambda _: next(there))
    assert work.calls == 2
    assert first == again
    run_stage(run, DemoFigures, 1, {}, [], work, still_there=lambda _: next(there))
    assert work.calls == 2


def test_a_stale_holder_cannot_commit(run: RunRef) -> None:
    store = LocalStore(run.config.store.url)
    raw, held = parse(store, run.name)
    assert held is not None
    taken = encode(held.model_copy(update={"token": run.token + 1}))
    assert store.compare_and_swap(lease_key(run.name), raw, taken)
    with pytest.raises(LeaseLost):
        run_stage(run, DemoFigures, 1, {}, [], Work())
    assert list(store.list("stages")) == []


@pytest.mark.parametrize("of", ["run", "stage"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_holder_that_loses_its_lease_publishes_nothing_or_takes_it_back(
    run: RunRef, monkeypatch: pytest.MonkeyPatch, of: str, when: str
) -> None:
    """Its successor may have ended by then, and nobody would look for these files."""
    store, publish, calls = LocalStore(run.config.store.url), LocalStore.publish_files, []

    def take() -> None:
        (name,) = (
            key.removeprefix("leases/").removesuffix(".json")
            for key in store.list("leases")
            if key.startswith("leases/stages/") is (of == "stage")
        )
        raw, held = parse(store, name)
        assert held is not None
        assert store.compare_and_swap(lease_key(name), raw, encode(held.model_copy(update={"token": held.token + 1})))

    def publish_late(*arguments: Any) -> str:
        calls.append(arguments)
        digest = publish(*arguments)
        take()
        return digest

    def work(space: Workspace) -> Made[Any]:
        if when == "before":
            take()
        return Work()(space)

    monkeypatch.setattr(LocalStore, "publish_files", publish_late)
    with pytest.raises(LeaseLost if of == "run" else TryAgain):
        run_stage(run, DemoFigures, 1, {}, [], work)
    assert len(calls) == (when == "meanwhile")
    assert [*store.list("artifacts"), *store.list("stages")] == []


def test_one_holder_a_run(run: RunRef) -> None:
    with pytest.raises(LeaseHeld, match=run.name), open_run(run.config):
        pass


def test_a_run_remembers_how_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(write_profile(tmp_path))
    store = open_store(config.store)
    with open_run(config) as ref:
        assert run_overview(store, ref.name).status == "running"
    assert run_names(store) == [ref.name]
    assert run_overview(store, ref.name).status == "completed"
    for error, status, told in (
        (ConfigError("first line\nsecond line"), "failed", "first line"),
        (ZeroDivisionError("secret"), "failed", "ZeroDivisionError"),
        (OSError(errno.ENOSPC, "in the system's words"), "failed", "in the system's words. Make room in that place, "),
        (KeyboardInterrupt(), "stopped", "interrupted"),
        (TerminationSignal(signal.SIGTERM), "stopped", "stopped (SIGTERM)"),
        (SystemExit(), "stopped", "stopped"),
    ):
        with pytest.raises(type(error)), open_run(config):
            raise error
        shown = run_overview(store, ref.name)
        assert shown.status == status
        assert shown.error == told or (told.endswith(" ") and shown.error.startswith(told))
    assert resumed_config(config.store, ref.name) == config


def test_resuming_on_a_changed_prompt_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set.jsonl").write_text('{"problem": "1+1", "answer": "2"}\n')
    config = load_config(write_profile(tmp_path), ["data.path=set.jsonl"])
    with open_run(config) as ref:
        pass
    (tmp_path / "set.jsonl").write_text('{"problem": "1+2", "answer": "3"}\n')
    with pytest.raises(ConfigError, match=r"set\.jsonl has changed since run"):
        resumed_config(config.store, ref.name)


def test_who_only_looks_gets_what_is_committed_and_writes_nothing(run: RunRef) -> None:
    work, store = Work(), open_store(run.config.store)
    record = run_stage(run, DemoFigures, 1, {}, [], work)
    kept = ("stages", "runs", "artifacts")
    before = {key: store.get(key) for place in kept for key in store.list(place)}
    with only_looking():
        assert run_stage(run, DemoFigures, 1, {}, [], work) == record
        with pytest.raises(NotCommitted, match=r"^demo/[0-9a-f]{32}$"):
            run_stage(run, DemoFigures, 1, {"other": 1}, [], work)
        with pytest.raises(NotCommitted):
            run_stage(run, DemoFigures, 1, {}, [], work, still_there=lambda _: False)
    assert {key: store.get(key) for place in kept for key in store.list(place)} == before
    (Path(run.config.store.url) / str(record.files) / "file.txt").unlink()
    with only_looking(), pytest.raises(NotCommitted):
        run_stage(run, DemoFigures, 1, {}, [], work)
    assert work.calls == 1


def test_a_run_is_only_looked_at_where_it_is_completed_unchanged_and_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(write_profile(tmp_path))
    assert completed_run(config) is None
    with open_run(config) as held:
        assert completed_run(config) is None  # somebody is at it
    found = completed_run(config)
    assert found is not None
    assert (found.name, found.inputs) == (held.name, held.inputs)
    assert completed_run(load_config(tmp_path / "tiny.toml", ["training.micro_batch_tokens=512"])) is None
    status = tmp_path / ".cures/runs" / held.name / "status.json"
    status.chmod(0o644)
    status.write_text("{")
    assert completed_run(config) is None  # damaged: the flow mends it


def test_what_a_fork_took_over_is_found_whatever_its_settings_and_never_made_by_it(run: RunRef) -> None:
    record = run_stage(run, DemoFigures, 1, {"a": 1}, [], Work(), label="2")
    fork = Fork(run="parent-1", epoch=0, step=0, records={"demo 2": record.key})
    forked = run.model_copy(update={"config": run.config.model_copy(update={"fork": fork})})
    work, store = Work(), open_store(run.config.store)
    assert run_stage(forked, DemoFigures, 1, {"a": 2}, [], work, label="2") == record
    with only_looking():
        assert run_stage(forked, DemoFigures, 1, {"a": 2}, [], work, label="2") == record
    remedy = r"Taken over from run parent-1\. To make it again: cures run --resume parent-1; then resume this run$"
    path = Path(run.config.store.url) / str(record.files) / "file.txt"
    path.chmod(0o644)
    path.write_text("jello")
    with pytest.raises(CorruptArtifact, match=rf"file\.txt.*\. {remedy}"):
        run_stage(forked, DemoFigures, 1, {"a": 2}, [], work, label="2")
    store.delete(f"stages/demo/{record.key}.json")
    with pytest.raises(CorruptArtifact, match=rf"^stages/demo/{record.key}\.json: is gone\. {remedy}"):
        run_stage(forked, DemoFigures, 1, {"a": 2}, [], work, label="2")
    assert work.calls == 0
    run_stage(forked, DemoFigures, 1, {"a": 2}, [], work, label="3")  # this one it has not
    assert work.calls == 1
    again = forked.model_copy(update={"again": {"demo-2": 1}})
    assert run_stage(again, DemoFigures, 1, {"a": 2}, [], work, label="2").key != record.key
    assert work.calls == 2


def test_what_a_job_says_is_figures_and_its_machine_apart(tmp_path: Path) -> None:
    (tmp_path / "figures.json").write_text('{"length": 7, "machine": {"device": "cpu"}}')
    assert read_made(DemoFigures, tmp_path) == Made(DemoFigures(length=7), {"device": "cpu"})
    (tmp_path / "figures.json").write_text('{"length": 7}')
    assert read_made(DemoFigures, tmp_path, length=8) == Made(DemoFigures(length=7))
    (tmp_path / "figures.json").write_text("{}")
    assert read_made(DemoFigures, tmp_path, length=8) == Made(DemoFigures(length=8))


def test_where_another_run_has_committed_first_its_record_counts(run: RunRef, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(run.config.store)
    theirs = run_stage(run, DemoFigures, 1, {}, [], Work("theirs"))
    place = f"stages/demo/{theirs.key}.json"
    raw = store.get(place)
    assert raw is not None
    left: list[bytes | None] = [raw, None]

    def too_late(*_: Any) -> bool:
        if (found := left.pop(0)) is not None:
            store.put(place, found)
        return False

    monkeypatch.setattr(stage_module, "commit", too_late)
    store.delete(place)
    assert run_stage(run, DemoFigures, 1, {}, [], Work("mine")) == theirs
    assert {name.rpartition("/")[0] for name in store.list("artifacts")} == {theirs.files}
    assert (files_of(store, theirs) / "file.txt").read_text() == "theirs"
    store.delete(place)
    with pytest.raises(StoreUnavailable, match=rf"^demo/{theirs.key}: was there and is gone; resume to do it again"):
        run_stage(run, DemoFigures, 1, {}, [], Work("mine"))


def test_what_a_person_wants_again_is_done_for_that_label_alone(run: RunRef) -> None:
    again = run.model_copy(update={"again": {"demo-2": 1}})
    first = {label: run_stage(run, DemoFigures, 1, {"of": label}, [], Work(), label=label) for label in "12"}
    then = {label: run_stage(again, DemoFigures, 1, {"of": label}, [], Work(), label=label) for label in "12"}
    assert first["1"] == then["1"]
    assert first["2"].key != then["2"].key


def test_a_record_says_what_it_was_made_of_with_what_and_when(run: RunRef) -> None:
    parent = run_stage(run, OtherFigures, 1, {}, [], Work(kind=OtherFigures))
    record = run_stage(run, DemoFigures, 1, {"a": 1}, [parent], Work(), label="2")
    assert record.parents == (f"other/{parent.key}",)
    assert record.inputs == {"a": 1}
    assert {"python", "torch"} <= set(record.versions) == {*versions(), *built_from()}
    assert record.machine == {"processor": processor()}
    assert 0 <= record.seconds < 60
    assert record.seconds == round(record.seconds, 3)
    assert dt.datetime.fromisoformat(record.created_at).utcoffset() == dt.timedelta(0)
    notes = stage_notes(open_store(run.config.store), run.name)
    assert [(n["stage"], n["label"], n["cached"]) for n in notes] == [("other", "", False), ("demo", "2", False)]
