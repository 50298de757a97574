"""One holder a run: leases among real processes, and what observers elsewhere may conclude."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cures_core.errors import CorruptArtifact, LeaseHeld, LeaseLost, StoreUnavailable
from cures_core.files import canonical_json
from tasks.storage import LocalStore
from tasks.storage.fencing import check_token, commit, encode, lease_key, parse, settle
from tasks.storage.lease import Lease, Pulse, acquire, beat, holder_gone, process_start, release, this_process

ROOT = Path(__file__).resolve().parents[3]
OPERATIONS = range(6)  # read the lease, note the commit, write, read and clear the note, read to give the lease back


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def start(store: LocalStore, label: str, ttl_s: float, *fault: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.tasks.storage.worker", str(store.root), label, str(ttl_s), *fault]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def run(store: LocalStore, label: str, ttl_s: float, deadline_s: float = 20) -> list[str]:
    """Lines of a worker that keeps trying to get the lease."""
    end = time.monotonic() + deadline_s
    while True:
        process = start(store, label, ttl_s)
        out, _ = process.communicate(timeout=deadline_s)
        if process.returncode != LeaseHeld.exit_code or time.monotonic() > end:
            return out.splitlines()


def wait_until_stopped(process: subprocess.Popen[str]) -> None:
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), "the worker ended before the operation it was to stop at"


def test_a_holder_that_is_gone_is_known_on_its_machine_and_noticed_from_another(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert holder_gone(store, "run", 5) is None  # nobody has ever held it
    lease = Lease(store, "run", 5)
    assert holder_gone(store, "run", 5) is None
    now = [0.0]
    pulse = Pulse(store, "run", 5, lambda: now[0])
    monkeypatch.setattr("tasks.storage.lease.process_start", lambda _: None)
    assert holder_gone(store, "run", 5) == this_process().label
    monkeypatch.setattr("tasks.storage.lease.machine_id", lambda: "another")
    assert holder_gone(store, "run", 5) is None
    now[0] = 4.0
    assert not pulse.stopped()
    beat(store, "run", lease.token)
    now[0] = 8.0
    assert not pulse.stopped()
    now[0] = 13.1
    assert pulse.stopped()
    lease.close()
    assert holder_gone(store, "run", 5) == "nobody"


def test_the_token_grows_with_every_holder(store: LocalStore) -> None:
    tokens = []
    for _ in range(3):
        lease = Lease(store, "run", 5)
        lease.check()
        tokens.append(lease.token)
        lease.close()
        lease.close()
    assert [token - tokens[0] for token in tokens] == [0, 1, 2]


def test_runs_do_not_share_a_lease(store: LocalStore) -> None:
    leases = [Lease(store, name, 5) for name in ("a", "b")]
    for lease in leases:
        lease.check()
        lease.close()


def test_whoever_held_a_lease_that_was_removed_has_lost_it(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.storage.fencing.time.time", lambda: 1.8e9)
    first = acquire(store, "run", 60, this_process())
    store.delete(lease_key("run"))
    monkeypatch.setattr("tasks.storage.fencing.time.time", lambda: 1.8e9 + 1)
    second = acquire(store, "run", 60, this_process())
    with pytest.raises(LeaseLost):
        beat(store, "run", first)
    with pytest.raises(LeaseLost):
        commit(store, "run", first, "record", b"1")
    assert commit(store, "run", second, "record", b"2")


def test_a_living_holder_is_named_at_once(store: LocalStore) -> None:
    lease = Lease(store, "run", 60)
    started = time.monotonic()
    process = start(store, "second", 60)
    out, _ = process.communicate(timeout=20)
    lease.close()
    assert process.returncode == 75
    assert f"process {os.getpid()}" in out
    assert time.monotonic() - started < 10


def test_after_close_nothing_can_be_committed(store: LocalStore) -> None:
    lease = Lease(store, "run", 5)
    lease.close()
    for act in (lease.check, lambda: lease.commit("k", b"")):
        with pytest.raises(LeaseLost):
            act()
    assert store.get("k") is None


@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_before_any_operation_the_next_holder_starts_at_once(store: LocalStore, operation: int) -> None:
    first = start(store, "first", 60, "SIGKILL", str(operation))
    first.communicate(timeout=20)
    assert first.returncode == -signal.SIGKILL
    held = json.loads(store.get(lease_key("run")) or b"{}")
    noted, written = held["pending"] is not None, store.get("record") is not None
    started = time.monotonic()
    lines = run(store, "second", 60)
    assert time.monotonic() - started < 10
    assert lines[0] == f"held {held['token'] + 1}"
    assert store.get("record") == (b"first" if noted or written else b"second")
    assert lines[1] == f"committed {store.get('record') == b'second'}"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_stopped_past_its_lease_before_any_operation_only_one_commits(store: LocalStore, operation: int) -> None:
    first = start(store, "first", 1.0, "SIGSTOP", str(operation))
    assert first.stdout is not None
    token = int(first.stdout.readline().removeprefix("held "))
    wait_until_stopped(first)
    second = run(store, "second", 1.0)
    assert second[0] == f"held {token + 1}"
    value = store.get("record")
    os.kill(first.pid, signal.SIGCONT)
    out = first.stdout.read()
    first.wait(timeout=20)
    assert store.get("record") == value
    assert (second[1] == "committed True") is (value == b"second")
    assert ("committed True" in out) is (value == b"first")
    assert ("LeaseLost" in out) is (value == b"second")


def test_heartbeats_keep_the_lease(store: LocalStore) -> None:
    lease = Lease(store, "run", 0.5)
    time.sleep(1.2)
    for machine in (this_process().machine, "elsewhere"):
        with pytest.raises(LeaseHeld):
            acquire(store, "run", 0.5, replace(this_process(), machine=machine))
    lease.check()
    lease.close()


def test_an_observer_elsewhere_waits_for_the_time_to_live_by_its_own_clock(store: LocalStore) -> None:
    first = acquire(store, "run", 10, this_process(), clock=lambda: 1e9)
    now = [-3600.0]
    token = acquire(
        store,
        "run",
        10,
        replace(this_process(), machine="elsewhere"),
        lambda: now[0],
        lambda s: now.__setitem__(0, now[0] + s),
    )
    assert token == first + 1
    assert 10 < now[0] + 3600 < 12


def test_a_reused_process_id_is_not_the_holder(store: LocalStore) -> None:
    first = acquire(store, "run", 60, replace(this_process(), started="1"))
    assert acquire(store, "run", 60, this_process()) == first + 1


def test_a_release_by_a_stale_holder_changes_nothing(store: LocalStore) -> None:
    stale = acquire(store, "run", 60, replace(this_process(), pid=0))
    token = acquire(store, "run", 60, this_process())
    release(store, "run", stale)
    check_token(store, "run", token)


def test_a_commit_reports_what_counts(store: LocalStore) -> None:
    token = acquire(store, "run", 60, this_process())
    assert commit(store, "run", token, "k", b"1")
    assert not commit(store, "run", token, "k", b"2")
    assert not commit(store, "run", token, "k", b"3", expected=b"2")
    assert commit(store, "run", token, "k", b"4", expected=b"1")
    assert store.get("k") == b"4"
    assert json.loads(store.get(lease_key("run")) or b"{}")["pending"] is None


def test_settle_finishes_a_commit_that_an_outage_interrupted(store: LocalStore) -> None:
    class Outage:
        """The store goes away once the commit is noted."""

        def __getattr__(self, name: str) -> Any:
            held = json.loads(store.get(lease_key("run")) or b"{}")
            if name == "compare_and_swap" and held["pending"] is not None:
                raise StoreUnavailable("gone")
            return getattr(store, name)

    token = acquire(store, "run", 60, this_process())
    with pytest.raises(StoreUnavailable):
        commit(Outage(), "run", token, "k", b"1")
    assert store.get("k") is None
    settle(store, "run")
    settle(store, "run")
    assert store.get("k") == b"1"
    assert not commit(store, "run", token, "k", b"2")


def test_an_outage_of_the_store_does_not_end_the_lease_and_is_told(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lease = Lease(store, "a-run", 0.4)
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "get", _gone)
        # Leases that other tests have left open beat in this process too.
        _wait_until(lambda: "no sign of life could be written for run a-run: gone" in caplog.messages)
    _wait_until(lambda: json.loads(store.get(lease_key("a-run")) or b"{}")["beat"] > 0)
    lease.check()
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "get", _gone)
        lease.close()
    assert "the lease of run a-run was not given back (gone); it ends 0 s from now" in caplog.messages


def _wait_until(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.02)


def _gone(*_: object) -> bytes:
    raise StoreUnavailable("gone")


def test_a_digit_changed_in_a_lease_is_told_and_one_of_an_earlier_version_is_read(store: LocalStore) -> None:
    Lease(store, "run", 5).close()
    raw, held = parse(store, "run")
    assert raw is not None
    assert held is not None
    store.put(lease_key("run"), raw.replace(b'"token":1', b'"token":2'))
    with pytest.raises(CorruptArtifact, match=r"leases/run\.json: its bytes are not those that were written"):
        Lease(store, "run", 5)
    store.put(lease_key("run"), canonical_json(held.model_dump(mode="json")))
    assert acquire(store, "run", 5, this_process()) == held.token + 1


@pytest.mark.parametrize("damaged", [b"", b"null", b"{}", b"\xff"])
def test_a_damaged_lease_is_an_error_that_names_it(store: LocalStore, damaged: bytes) -> None:
    store.put(lease_key("run"), damaged)
    with pytest.raises(CorruptArtifact, match=r"leases/run\.json"):
        Lease(store, "run", 5)


def test_a_process_is_the_same_one_when_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil
    from psutil import _pslinux

    before, boot = process_start(os.getpid()), psutil.boot_time()
    assert before is not None
    for step in (-86_400.0, 3.7):
        monkeypatch.setattr(_pslinux, "boot_time", lambda step=step: boot + step)  # what the kernel tells then
        assert process_start(os.getpid()) == before
    assert process_start(0) is None


def test_a_process_that_has_ended_is_gone_though_nobody_has_asked_how() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process_start(child.pid) is None  # a zombie


def test_each_beat_counts_one(store: LocalStore) -> None:
    token = acquire(store, "run", 5, this_process())
    for expected in (1, 2):
        beat(store, "run", token)
        held = parse(store, "run")[1]
        assert held is not None
        assert held.beat == expected


def test_a_holder_is_silent_for_too_long_only_beyond_its_time_to_live(store: LocalStore) -> None:
    me = this_process()
    first = acquire(store, "run", 5, me, lambda: 10.0)
    with pytest.raises(LeaseHeld):
        acquire(store, "run", 5, me, lambda: 15.0)
    assert acquire(store, "run", 5, me, lambda: 15.1) == first + 1


def test_the_thread_that_beats_is_named_and_keeps_no_process_alive(store: LocalStore) -> None:
    lease = Lease(store, "a-run", 5)
    (thread,) = (each for each in threading.enumerate() if each.name == "lease of a-run")
    assert thread.daemon
    lease.close()
    assert not thread.is_alive()


def test_whoever_loses_a_lease_is_called(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    lost = threading.Event()
    lease = Lease(store, "stages/train_epoch/k", 0.4, lost.set)
    _, taken = parse(store, "stages/train_epoch/k")
    assert taken is not None
    store.put(lease_key("stages/train_epoch/k"), encode(taken.model_copy(update={"token": 2, "holder": "bob"})))
    assert lost.wait(10)
    with pytest.raises(LeaseLost, match=r"stage train_epoch/k .* is held by bob") as told:
        lease.check()
    assert str(told.value) in caplog.messages
    lease.close()
