"""The steps of a fenced commit, one at a time; whole schedules of them are in test_schedules.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cures_core.errors import CorruptArtifact, InjectedFault, LeaseLost
from cures_core.faults import arm
from tasks.storage import LocalStore
from tasks.storage.fencing import Held, Pending, commit, encode, lease_key, parse, renew, settle
from tasks.storage.lease import Lease, Pulse, is_free
from tasks.storage.values import set_aside


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def lease(store: LocalStore) -> Iterator[Lease]:
    held = Lease(store, "run", 60)
    yield held
    held.close()


def pending(store: LocalStore) -> Pending | None:
    _, held = parse(store, "run")
    assert held is not None
    return held.pending


def note(lease: Lease, folder: Path, key: str, data: bytes, expected: bytes | None = None) -> None:
    """Begin a commit that gets no further than its note."""
    arm([f"commit.noted:{key}=raise"], folder / "faults")
    try:
        with pytest.raises(InjectedFault):
            lease.commit(key, data, expected)
    finally:
        arm([], folder)


def test_a_value_goes_from_what_was_expected_to_the_new_one(store: LocalStore, lease: Lease) -> None:
    assert lease.commit("k", b"1")
    assert lease.commit("k", b"1")  # what is there is what was to be committed
    assert not lease.commit("k", b"2")
    assert not lease.commit("k", b"2", expected=b"0")
    assert store.get("k") == b"1"
    assert lease.commit("k", b"2", expected=b"1")
    assert store.get("k") == b"2"
    assert pending(store) is None


@pytest.mark.parametrize(("before", "after"), [(b"1", b"2"), (b"9", b"9")])
def test_a_commit_that_was_noted_is_finished_unless_the_value_has_changed(
    store: LocalStore, lease: Lease, before: bytes, after: bytes, tmp_path: Path
) -> None:
    store.put("k", b"1")
    note(lease, tmp_path, "k", b"2", b"1")
    assert store.get("k") == b"1"
    store.put("k", before)
    settle(store, "run")
    assert store.get("k") == after
    assert pending(store) is None


def test_another_commit_of_the_same_holder_is_finished_first(store: LocalStore, lease: Lease, tmp_path: Path) -> None:
    note(lease, tmp_path, "first", b"1")
    assert lease.commit("second", b"2")
    assert (store.get("first"), store.get("second")) == (b"1", b"2")


def test_an_empty_value_is_one(store: LocalStore, lease: Lease, tmp_path: Path) -> None:
    note(lease, tmp_path, "k", b"")
    settle(store, "run")
    assert store.get("k") == b""


@pytest.mark.parametrize("field", ["data", "expected"])
@pytest.mark.parametrize("text", ["no base64!", "eA", "e\nA=="])
def test_a_note_that_is_not_readable_is_said(store: LocalStore, lease: Lease, field: str, text: str) -> None:
    _, held = parse(store, "run")
    assert held is not None
    note = Pending(key="k", expected=None, data=None).model_copy(update={field: text})
    store.put(lease_key("run"), encode(held.model_copy(update={"pending": note})))
    said = rf"^leases/run\.json: pending\.{field}: .*: cures runs set-aside leases/run\.json$"
    with pytest.raises(CorruptArtifact, match=said):
        settle(store, "run")


def test_a_lease_that_is_removed_under_a_commit_leaves_it_done(tmp_path: Path) -> None:
    class Removing(LocalStore):
        def compare_and_swap(self, key: str, expected: bytes | None, data: bytes) -> bool:
            done = super().compare_and_swap(key, expected, data)
            if key == "k":
                self.delete(lease_key("run"))
            return done

    store = Removing(tmp_path)
    lease = Lease(store, "run", 60)
    assert commit(store, "run", lease.token, "k", b"1")
    with pytest.raises(LeaseLost, match="is held by nobody now"):
        commit(store, "run", lease.token, "k", b"2", b"1")
    lease.close()


def test_a_holder_is_watched_by_its_beats(store: LocalStore) -> None:
    now = [100.0]
    lease = Held(token=1, holder="me", machine="elsewhere", pid=1, started="1", clock=5.0, beat=0, pending=None)
    store.put(lease_key("run"), encode(lease))
    pulse = Pulse(store, "run", 10.0, lambda: now[0])
    now[0] += 10.0
    assert not pulse.stopped()  # as long as it may be silent, and no longer
    now[0] += 0.5
    assert pulse.stopped()
    store.put(lease_key("run"), encode(lease.model_copy(update={"beat": 1})))
    assert not pulse.stopped()
    now[0] += 10.5
    assert pulse.stopped()


def test_a_lease_is_free_where_nobody_holds_it_or_its_holder_is_known_to_be_gone(store: LocalStore) -> None:
    assert is_free(store, "run", 60)
    lease = Lease(store, "run", 60)
    assert not is_free(store, "run", 60)
    assert is_free(store, "other", 60)
    _, held = parse(store, "run")
    assert held is not None
    lease.close()
    assert is_free(store, "run", 60)
    store.put(lease_key("run"), encode(held.model_copy(update={"started": "0"})))  # another process with its number
    assert is_free(store, "run", 60)
    store.put(lease_key("run"), encode(held.model_copy(update={"machine": "elsewhere", "started": "0"})))
    assert not is_free(store, "run", 60)


def test_damaged_bytes_are_kept_once_each(store: LocalStore) -> None:
    assert set_aside(store, "stages/a/k.json", b"x") == "damaged/stages/a/k.json-1"
    assert set_aside(store, "stages/a/k.json", b"y") == "damaged/stages/a/k.json-2"
    assert set_aside(store, "stages/a/k.json", b"x") == "damaged/stages/a/k.json-1"
    assert [store.get(f"damaged/stages/a/k.json-{n}") for n in (1, 2)] == [b"x", b"y"]


def test_a_renewed_lease_is_free_and_whoever_held_it_has_lost_it(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = Lease(store, "run", 60)
    monkeypatch.setattr("tasks.storage.fencing.time.time", lambda: lease.token + 1.0)
    store.put(lease_key("run"), b"{")
    assert renew(store, "run", b"{") == "damaged/leases/run.json-1"
    assert store.get("damaged/leases/run.json-1") == b"{"
    _, free = parse(store, "run")
    assert free is not None
    nobody = {"holder": None, "machine": "", "pid": 0, "started": None, "clock": 0.0, "beat": 0, "pending": None}
    assert free.model_dump(exclude={"token"}) == nobody
    assert free.token > lease.token
    with pytest.raises(LeaseLost):
        lease.commit("record", b"1")
    assert is_free(store, "run", 60)


def test_a_damaged_lease_that_somebody_has_replaced_is_left(store: LocalStore) -> None:
    held = Lease(store, "run", 60)
    whole = store.get(lease_key("run"))
    assert renew(store, "run", b"{") is None
    assert store.get(lease_key("run")) == whole
    held.close()
