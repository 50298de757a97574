"""Checkpoints of an unfinished epoch, sent to S3 and fetched on a machine with an empty disk."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from cures_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from cures_core.checkpoints.in_epoch import SPOILT, latest_step, save_step
from cures_core.config.fork import Fork
from cures_core.config.loading import load_config
from cures_core.errors import ChildFailed, CorruptArtifact, StoreUnavailable
from tasks.runs.records import RunRef
from tasks.stages import unfinished
from tasks.stages.unfinished import begin_at, checkpoints_in_store, checkpoints_of, keep, keep_beginning, note_spoilt
from tasks.storage import LocalStore, S3Store
from tasks.storage import s3_client as client_module
from tests.end_to_end.pipeline import write_profile
from tests.tasks.storage.servers import BUCKET, Action, FaultyServer, moto_url

__all__ = ["moto_url"]

PLACE = "unfinished/train_epoch/key"
AFRESH = "type this"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished, "_POLL_S", 0.02)
    monkeypatch.setattr(client_module, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(client_module, "_LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(client_module, "_ATTEMPTS_A_PART", 2)


@pytest.fixture
def url() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def save(scratch: Path, step: int) -> None:
    save_step(Checkpoint({}, {}, {}, {"step": step}, [{"step": step}]), scratch)


def steps_in(store: S3Store) -> list[str]:
    return [key.split("/")[-2] for key in store.list(PLACE) if key.endswith("manifest.json")]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_newest_one_is_sent_while_training_goes_on_and_fetched_elsewhere(
    tmp_path: Path, moto_url: str, url: str
) -> None:
    store = S3Store(url, tmp_path / "a", moto_url)
    scratch = tmp_path / "a" / "scratch"
    scratch.mkdir(parents=True)

    def train_and_die() -> None:
        with checkpoints_in_store(store, PLACE, "run-1", scratch, AFRESH):
            for step in (5, 10):
                save(scratch, step)
                wait_until(lambda step=step: steps_in(store) == [f"step-{step:06d}"])
            save(scratch, 12)
            raise ChildFailed("killed")

    with pytest.raises(ChildFailed):
        train_and_die()
    assert steps_in(store) == ["step-000012"]  # the last words of a stopped epoch
    assert latest_step(scratch) is not None  # sending has taken nothing away
    assert not list((tmp_path / "a").glob(f"{BUCKET}/**/step-000005"))  # nor left anything behind

    elsewhere = tmp_path / "b" / "scratch"
    elsewhere.mkdir(parents=True)
    with checkpoints_in_store(S3Store(url, tmp_path / "b", moto_url), PLACE, "run-2", elsewhere, AFRESH):
        found = latest_step(elsewhere)
    assert found is not None
    assert (found.step, found.metrics) == (12, [{"step": 12}])


def test_a_damaged_one_is_passed_over_and_what_is_newer_here_stays(tmp_path: Path, moto_url: str, url: str) -> None:
    store = S3Store(url, tmp_path / "a", moto_url)
    for writer, step in (("run-1", 5), ("run-2", 10)):
        save(tmp_path / writer, step)
        store.publish_files(f"{PLACE}/{writer}/step-{step:06d}", tmp_path / writer / f"step-{step:06d}")
    store.put(f"{PLACE}/run-2/step-000010/state.json", b"?")
    for here, expected in ((None, 5), (7, 7)):
        scratch = tmp_path / f"scratch-{here}"
        scratch.mkdir()
        if here is not None:
            save(scratch, here)
        other = S3Store(url, tmp_path / f"cache-{here}", moto_url)
        with checkpoints_in_store(other, PLACE, "run-3", scratch, AFRESH):
            found = latest_step(scratch)
        assert found is not None
        assert found.step == expected


def flip(folder: Path) -> None:
    file = folder / "state.json"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])


@pytest.mark.parametrize(("in_store", "expected"), [(5, 5), (10, 10), (12, 12)])
def test_a_damaged_one_here_does_not_hide_the_whole_one_in_the_store(
    tmp_path: Path, moto_url: str, url: str, in_store: int, expected: int
) -> None:
    """And what is sent of a damaged one would be taken for whole."""
    store = S3Store(url, tmp_path / "a", moto_url)
    save(tmp_path / "sent", in_store)
    store.publish_files(f"{PLACE}/run-1/step-{in_store:06d}", tmp_path / "sent" / f"step-{in_store:06d}")
    save(tmp_path / "scratch", 10)
    flip(tmp_path / "scratch" / "step-000010")
    with checkpoints_in_store(S3Store(url, tmp_path / "b", moto_url), PLACE, "run-2", tmp_path / "scratch", AFRESH):
        found = latest_step(tmp_path / "scratch")
        assert found is not None
        assert found.step == expected
        time.sleep(0.2)
        for key in [key for key in store.list(PLACE) if key.endswith("/manifest.json")]:
            load_checkpoint(store.local_path(key.rpartition("/")[0]))
        if expected == 5:
            assert steps_in(store) == ["step-000005"]
            save(tmp_path / "scratch", 10)
            wait_until(lambda: steps_in(store) == ["step-000005", "step-000010"])


def test_where_there_are_checkpoints_and_none_is_whole_nothing_begins_afresh_by_itself(
    tmp_path: Path, moto_url: str, url: str
) -> None:
    store = S3Store(url, tmp_path / "a", moto_url)
    save(tmp_path / "sent", 5)
    store.publish_files(f"{PLACE}/run-1/step-000005", tmp_path / "sent" / "step-000005")
    store.put(f"{PLACE}/run-1/step-000005/state.json", b"?")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    told = r"train_epoch/key: none of 1 checkpoints in the store is intact, .*afresh: type this"

    def begin() -> None:
        with checkpoints_in_store(S3Store(url, tmp_path / "b", moto_url), PLACE, "run-2", scratch, AFRESH):
            raise AssertionError("it begins")

    with pytest.raises(CorruptArtifact, match=told):
        begin()
    save(scratch, 3)
    flip(scratch / "step-000003")
    with pytest.raises(CorruptArtifact, match=told):
        begin()
    save(scratch, 3)
    with pytest.raises(AssertionError, match="it begins"):
        begin()


def test_during_an_outage_training_goes_on_and_the_newest_one_is_sent_at_its_end(
    tmp_path: Path, moto_url: str, url: str
) -> None:
    away = False
    with FaultyServer(moto_url, lambda *_: (503, "ServiceUnavailable") if away else None) as server:
        store = S3Store(url, tmp_path / "a", server.url, deadline_s=0.2)
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        with checkpoints_in_store(store, PLACE, "run-1", scratch, AFRESH):
            away = True
            for step in (1, 2, 3):
                save(scratch, step)
                time.sleep(0.3)  # longer than a server is waited for that has never answered
            assert steps_in(S3Store(url, tmp_path / "b", moto_url)) == []  # nothing counts before it is whole
            away = False
            wait_until(lambda: steps_in(store) == ["step-000003"])


@pytest.mark.parametrize("objects", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 3))])
def test_an_upload_cut_short_leaves_the_checkpoint_before_for_another_machine(
    tmp_path: Path, moto_url: str, url: str, objects: int
) -> None:
    """The machine is gone after so many objects of the second checkpoint."""
    puts: list[int] = []

    def cut(number: int, method: str) -> Action:
        if method == "PUT" and second:
            puts.append(number)
        return (503, "ServiceUnavailable") if len(puts) > objects else None

    second = False
    with FaultyServer(moto_url, cut) as server:
        store = S3Store(url, tmp_path / "a", server.url, deadline_s=0.2)
        scratch = tmp_path / "a" / "scratch"
        save(scratch, 5)
        store.publish_files(f"{PLACE}/run-1/step-000005", scratch / "step-000005")
        second = True
        save(scratch, 10)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client_module, "OUTAGE_S", 0.2)
            with pytest.raises(StoreUnavailable):
                store.publish_files(f"{PLACE}/run-1/step-000010", scratch / "step-000010")
    elsewhere = tmp_path / "b" / "scratch"
    elsewhere.mkdir(parents=True)
    with checkpoints_in_store(S3Store(url, tmp_path / "b", moto_url), PLACE, "run-2", elsewhere, AFRESH):
        found = latest_step(elsewhere)
    assert found is not None
    assert found.step == 5


def test_a_store_in_a_folder_needs_no_copies(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    with checkpoints_in_store(store, PLACE, "run-1", tmp_path / "scratch", AFRESH):
        save(tmp_path / "scratch", 1)
        time.sleep(0.1)
    assert list(store.list("unfinished")) == []


def test_a_fork_finds_checkpoints_here_and_in_the_store_but_no_spoilt_ones(
    tmp_path: Path, moto_url: str, url: str
) -> None:
    store = S3Store(url, tmp_path / "cache", moto_url)
    options = [f"store.url={url}", f"store.scratch={tmp_path / 'mine'}"]
    run = RunRef(name="demo", config=load_config(write_profile(tmp_path), options), token=1)
    here, there = tmp_path / "mine" / "scratch" / "train_epoch" / "key" / "000001-demo" / "scratch", tmp_path / "there"
    for folder, step in ((here, 2), (here, 4), (there, 3)):
        folder.mkdir(parents=True, exist_ok=True)
        save(folder, step)
    store.publish_files(f"{PLACE}/demo-1/step-000003", there / "step-000003")

    def found() -> list[int]:
        return [load_checkpoint(folder).step for folder in checkpoints_of(store, run, "train_epoch", "key")]

    assert found() == [4, 3, 2]
    note_spoilt(store, here, PLACE)
    assert found() == [4, 3, 2]
    (here / SPOILT).write_text('{"step": 4}')
    note_spoilt(store, here, PLACE)
    assert found() == [3, 2]
    begun = Fork(run="demo", epoch=0, step=2, records={}, checkpoint=keep(store, here / "step-000002"))
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    begin_at(store, begun, fresh)
    latest = latest_step(fresh)
    assert latest is not None
    assert latest.step == 2
    save(fresh, 3)
    begin_at(store, begun, fresh)  # what has come further is let alone
    assert [path.name for path in sorted(fresh.glob("step-*"))] == ["step-000002", "step-000003"]
    listed = store.get(f"{PLACE}/demo-1/step-000003/manifest.json") or b""
    only_there = Fork(run="demo", epoch=0, step=3, records={}, checkpoint=hashlib.sha256(listed).hexdigest())
    config = run.config.model_copy(update={"fork": only_there})
    keep_beginning(store, RunRef(name="fork", config=config, token=1))
    assert store.get(f"forks/{only_there.checkpoint}/manifest.json") == listed
    save(here, 3)  # one of the same step may be damaged
    assert found()[:2] == [3, 3]
