"""Folders of unfinished work: one a holder, taken over by the next, swept when nobody will go on with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cures_core.errors import InjectedFault
from cures_core.faults import arm
from tasks.runs.opening import open_run, scratch_root
from tasks.stages.workspace import sweep, take_over, unfinished_prefix
from tasks.storage import LocalStore
from tasks.storage.fencing import stage_lease
from tasks.storage.lease import Lease
from tests.tasks.stages.starts import config_in, own, shared
from tests.tasks.storage.vanishing import vanishing

TTL_S = 60.0


def left(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_the_next_holder_goes_on_in_the_latest_folder_and_older_ones_go(tmp_path: Path) -> None:
    for token in (9, 10):
        place = take_over(tmp_path, "train_epoch", "k", token, f"run-{token}")
        (place / "scratch" / f"step-{token}").touch()
        (place / "out" / "half").touch()
    stray = tmp_path / "train_epoch" / "k" / "000003-run-3"
    stray.mkdir()
    mine = take_over(tmp_path, "train_epoch", "k", 11, "run-11")
    assert [path.name for path in mine.parent.iterdir()] == ["000011-run-11"]
    assert left(mine) == ["scratch/step-10", "scratch/step-9"]


def test_a_holder_that_comes_late_takes_nothing_from_its_successor(tmp_path: Path) -> None:
    successor = take_over(tmp_path, "train_epoch", "k", 2, "b")
    (successor / "scratch" / "step-7").touch()
    late = take_over(tmp_path, "train_epoch", "k", 1, "a")
    assert left(late) == []
    assert left(successor) == ["scratch/step-7"]


def leave(root: Path, store: LocalStore, stage: str, key: str, run: str) -> Path:
    """What a killed holder leaves, here and in the store."""
    place = take_over(root, stage, key, 1, run)
    (place / "scratch" / "step-1").touch()
    store.put(f"{unfinished_prefix(stage, key)}/{run}-1/step-1/manifest.json", b"{}")
    return place


def test_what_is_committed_or_of_a_run_that_ended_well_is_swept_and_nothing_else(tmp_path: Path) -> None:
    config = config_in(tmp_path, 1e-4)
    store, root = LocalStore(config.store.url), tmp_path / "store" / "scratch"
    with open_run(config) as run:
        shared(run, tmp_path)
    (record,) = store.list("stages/prepare_policy")
    committed = leave(root, store, "prepare_policy", record.split("/")[2].removesuffix(".json"), "other")
    mine, others = leave(root, store, "train_epoch", "a", run.name), leave(root, store, "train_epoch", "b", "other")
    sweep(store, root, TTL_S)
    assert (committed.exists(), mine.exists(), others.exists()) == (False, True, True)
    assert len(list(store.list("unfinished"))) == 2
    lease = Lease(store, stage_lease("train_epoch", "a"), TTL_S)
    sweep(store, root, TTL_S, run.name)
    assert mine.exists()  # somebody works on it
    lease.close()
    sweep(store, root, TTL_S, run.name)
    assert (mine.exists(), others.exists()) == (False, True)
    assert [key.split("/")[2] for key in store.list("unfinished")] == ["b"]


@pytest.mark.parametrize("place", ["unfinished/x", "unfinished/train_epoch/x"])
def test_what_lies_there_under_no_name_of_ours_is_passed_over(place: str, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.put(place, b"")
    sweep(store, tmp_path / "scratch", TTL_S)
    assert list(store.list("unfinished")) == [place]


@pytest.mark.parametrize("look", range(1, 9))
def test_what_another_run_sweeps_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    store, root = LocalStore(tmp_path / "store"), tmp_path / "scratch"
    place = leave(root, store, "train_epoch", "a", "other")
    vanishing(place.parent, look, monkeypatch)
    sweep(store, root, TTL_S)


@pytest.mark.parametrize("point", ["stage.start", "stage.before_files", "stage.before_record", "stage.after_record"])
def test_a_run_that_ends_well_leaves_nothing_unfinished(tmp_path: Path, point: str) -> None:
    config = config_in(tmp_path, 1e-4)
    with open_run(config) as run:
        arm([f"{point}:prepare_policy=raise"], tmp_path / "faults")
        with pytest.raises(InjectedFault):
            shared(run, tmp_path)
    root = scratch_root(run)
    arm([], tmp_path)
    with open_run(config) as run:
        shared(run, tmp_path)
        own(run, tmp_path)
    assert left(root) == []
    store = LocalStore(config.store.url)
    assert list(store.list("unfinished")) == []
    assert len({key.rsplit("/", 1)[0] for key in store.list("artifacts")}) == 2  # no files without their record
