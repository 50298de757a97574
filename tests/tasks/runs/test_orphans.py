"""Files that no record names are swept, once nobody can come to name them; and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from tasks.runs.figures import PolicyFigures
from tasks.runs.opening import open_run
from tasks.runs.orphans import sweep_orphans
from tasks.runs.records import Record, files_of, record_place
from tasks.runs.verify import verify
from tasks.stages.stage import run_stage
from tasks.storage import Store, open_store
from tasks.storage.fencing import Pending, encode, lease_key, parse
from tasks.storage.lease import Lease
from tasks.storage.values import set_aside
from tests.tasks.stages.figures import made
from tests.tasks.stages.starts import config_in


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(config_in(tmp_path, 1e-4).store)


@pytest.fixture
def record(tmp_path: Path, store: Store) -> Record[Any]:
    """Of a run that was held three times, which has ended."""
    for _ in range(3):
        with open_run(config_in(tmp_path, 1e-4)) as run:
            found = policy(run)
    return found


def policy(run: Any) -> Record[Any]:
    def work(space: Any) -> Any:
        (space.out / "made.txt").write_text("made")
        return made("prepare_policy")

    return run_stage(run, PolicyFigures, 1, {}, [], work)


def run_of(record: Record[Any]) -> str:
    return str(record.files).rsplit("/", 1)[1].rpartition("-")[0]


def left(store: Store, record: Record[Any], writer: str) -> str:
    prefix = f"artifacts/{record.id}/{writer}"
    store.put(f"{prefix}/weights", b"left")
    return prefix


def test_what_a_holder_of_before_has_left_goes_and_what_the_record_names_stays(
    store: Store, record: Record[Any], tmp_path: Path
) -> None:
    run, url = run_of(record), str(tmp_path / "store")
    prefixes = [left(store, record, f"{run}-{suffix}") for suffix in ("1.9", "2-pruned", "3.4")]
    found = verify(config_in(tmp_path, 1e-4).store)
    assert found.damaged == ()
    assert [(note.place, note.remedy) for note in found.notes] == [(prefix, "cures runs sweep") for prefix in prefixes]
    outcome = CliRunner().invoke(app, ["runs", "sweep", "--store", url])
    assert outcome.output.splitlines() == [
        *(f"{p}: deleted" for p in prefixes),
        "3 deleted of files that no record names",
    ]
    assert verify(config_in(tmp_path, 1e-4).store).notes == ()
    assert (files_of(store, record) / "made.txt").read_text() == "made"


def test_a_run_that_ends_sweeps_its_own_stages(store: Store, record: Record[Any], tmp_path: Path) -> None:
    left(store, record, f"{run_of(record)}-2.9")
    with open_run(config_in(tmp_path, 1e-4)) as run:
        policy(run)
    assert {key.split("/")[3] for key in store.list("artifacts")} == {str(record.files).rsplit("/", 1)[1]}


def under_a_lease_that_is_held(store: Store, record: Record[Any]) -> Any:
    lease = Lease(store, run_of(record), 60)
    left(store, record, f"{run_of(record)}-{lease.token}.1")
    return closing(lease)


def under_a_noted_commit(store: Store, record: Record[Any]) -> None:
    left(store, record, f"{run_of(record)}-2-pruned")
    raw, held = parse(store, run_of(record))
    assert held is not None
    note = Pending(key=record_place(record.stage, record.key), expected=None, data="")
    store.compare_and_swap(lease_key(run_of(record)), raw, encode(held.model_copy(update={"pending": note})))


def under_a_damaged_lease(store: Store, record: Record[Any]) -> None:
    left(store, record, f"{run_of(record)}-2.9")
    store.put(lease_key(run_of(record)), b"{")


def of_a_stage_without_a_record(store: Store, record: Record[Any]) -> None:
    left(store, record, f"{run_of(record)}-2.9")
    store.delete(record_place(record.stage, record.key))


def of_a_damaged_record(store: Store, record: Record[Any]) -> None:
    left(store, record, f"{run_of(record)}-2.9")
    store.put(record_place(record.stage, record.key), b"{")


def of_a_record_that_was_set_aside(store: Store, record: Record[Any]) -> None:
    left(store, record, f"{run_of(record)}-2.9")
    set_aside(store, record_place(record.stage, record.key), b"{")


def of_a_run_that_nobody_knows(store: Store, record: Record[Any]) -> None:
    left(store, record, "another-1.1")
    left(store, record, "no-writer")


@pytest.mark.parametrize(
    "leave",
    [
        under_a_lease_that_is_held,
        under_a_noted_commit,
        under_a_damaged_lease,
        of_a_stage_without_a_record,
        of_a_damaged_record,
        of_a_record_that_was_set_aside,
        of_a_run_that_nobody_knows,
    ],
)
def test_what_somebody_may_come_to_name_stays(
    store: Store, record: Record[Any], leave: Callable[[Store, Record[Any]], Any]
) -> None:
    held = leave(store, record)
    before = list(store.list("artifacts"))
    assert sweep_orphans(store) == []
    assert list(store.list("artifacts")) == before
    if held is not None:
        with held:
            pass
        assert len(sweep_orphans(store)) == 1
