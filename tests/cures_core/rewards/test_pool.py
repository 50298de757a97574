"""The pool of killable processes: deadlines, crashes, memory, replacement, orphans, confinement."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cures_core.errors import ChildFailed, CuresError, OutOfMemory, SystemRefused, TryAgain
from cures_core.rewards import pool as pool_module
from cures_core.rewards.pool import Pool
from cures_core.rewards.wire import MAX_MESSAGE_BYTES, Frames, pack
from tests.cures_core.rewards.processes import everything, workers

# Patterns do for the pool's mechanics: their children start in no time, and `re` holds the interpreter lock too.
GOOD = {"pattern": "b", "text": "abc"}
FOUND = {"found": "b"}
HANGS = {"pattern": "(a+)+$", "text": "a" * 60 + "b"}


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(workers=1, timeout_s=0.5, memory_mb=512, work="regex")
    yield made
    made.close()
    assert everything() == []


def test_replies_come_in_order(pool: Pool) -> None:
    assert [reply["found"] for reply in pool.run([{"pattern": "[0-9]", "text": f"a{i}"} for i in range(9)])] == list(
        "012345678"
    )
    assert pool.run([]) == []


def test_hanging_job_is_killed_in_time_and_others_are_served(pool: Pool) -> None:
    pool.run([GOOD])
    start = time.monotonic()
    replies = pool.run([HANGS, GOOD])
    assert replies[0] == {"outcome": "unknown", "reason": "timeout"}
    assert replies[1] == FOUND
    assert time.monotonic() - start < 0.5 + 2.0
    assert pool.counts["timeouts"] == 1
    assert len(workers()) == 1


def test_big_power_that_holds_the_interpreter_lock_is_killed() -> None:
    pool = Pool(workers=1, timeout_s=0.5, memory_mb=512)
    replies = pool.run([{"gold": "5", "answer": "9^{9^{9^{9}}}"}, {"gold": "x+1", "answer": "1+x"}])
    assert [reply["outcome"] for reply in replies] == ["unknown", "correct"]
    pool.close()


def test_a_hanging_job_does_not_hold_up_the_other_workers() -> None:
    pool = Pool(workers=2, timeout_s=1.0, memory_mb=512, work="regex")
    pool.run([GOOD, GOOD])
    start = time.monotonic()
    replies = pool.run([HANGS, HANGS])
    assert [reply["reason"] for reply in replies] == ["timeout", "timeout"]
    assert time.monotonic() - start < 1.9
    pool.close()


def test_crash_in_a_job_is_unknown(pool: Pool) -> None:
    pool.run([GOOD])
    killer = threading.Timer(0.2, lambda: os.kill(int(workers()[0]), signal.SIGSEGV))
    killer.start()
    assert pool.run([HANGS, GOOD]) == [{"outcome": "unknown", "reason": "crash"}, FOUND]
    assert pool.counts["crashes"] == 1


def test_death_while_idle_costs_no_job(pool: Pool) -> None:
    pool.run([GOOD])
    os.kill(int(workers()[0]), signal.SIGKILL)
    time.sleep(0.1)
    assert pool.run([GOOD]) == [FOUND]
    assert pool.counts["crashes"] == 0


def test_children_are_replaced_after_their_share_of_jobs() -> None:
    pool = Pool(workers=1, timeout_s=2, memory_mb=512, work="regex", jobs_per_child=3)
    assert pool.run([GOOD] * 7) == [FOUND] * 7
    assert pool.counts["children"] == 3
    pool.close()


def test_memory_limit_is_kept_and_reported() -> None:
    script = """
import os, json
from cures_core.rewards import child
out = os.dup(1)
child._confine(256)
child.judge = lambda gold, answer: {"outcome": "wrong", "reason": str(len(bytearray(int(answer) << 20)))}
said = [child._answer({"gold": "x", "answer": megabytes}) for megabytes in ("64", "300")]
os.write(out, json.dumps(said).encode())
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    fits, too_big = json.loads(said.stdout)
    assert fits["reason"] == str(64 << 20)
    assert too_big == {"outcome": "unknown", "reason": "memory limit", "retire": True}


def test_memory_option_reaches_the_child() -> None:
    pool = Pool(workers=1, timeout_s=2, memory_mb=300, work="regex")
    pool.run([GOOD])
    limits = Path(f"/proc/{workers()[0]}/limits").read_text()
    assert f"{300 << 20}" in next(line for line in limits.splitlines() if line.startswith("Max address space"))
    pool.close()


def test_closing_twice_is_safe_and_a_closed_pool_can_start_again(pool: Pool) -> None:
    pool.run([GOOD])
    pool.close()
    pool.close()
    assert everything() == []
    assert pool.run([GOOD]) == [FOUND]


def test_a_worker_that_ends_by_itself_while_it_is_ended_does_no_harm(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: int) -> int:
        raise ProcessLookupError

    pool.run([GOOD])
    monkeypatch.setattr(os, "getpgid", gone)
    pool.close()
    assert everything() == []


def test_children_that_cannot_start_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_environment", lambda _: {"PYTHONHOME": "/nonexistent"})
    pool = Pool(workers=1, timeout_s=1, memory_mb=512, work="regex")
    with pytest.raises(ChildFailed, match="does not start"):
        pool.run([GOOD])
    assert everything() == []


@pytest.mark.parametrize(
    ("number", "told"), [(errno.EMFILE, SystemRefused), (errno.EAGAIN, TryAgain), (errno.ENOMEM, OutOfMemory)]
)
def test_a_machine_that_refuses_a_process_is_told_as_the_table_says(
    number: int, told: type[CuresError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", refused)
    with pytest.raises(CuresError, match=f"the verifier's process: {os.strerror(number)}") as error:
        Pool(workers=1, timeout_s=1, memory_mb=512, work="regex").run([GOOD])
    assert type(error.value) is told


@pytest.mark.parametrize("busy", [False, True])
def test_children_end_when_their_parent_is_killed(busy: bool) -> None:
    script = (
        "import sys\nfrom cures_core.rewards.pool import Pool\n"
        "p = Pool(1, 0.5, 512, 'regex')\np.run([{'pattern': 'b', 'text': 'b'}])\n"
        "print(p._children[0].pid, flush=True)\n"
        + ("p._timeout_s = 600\np.run([{'pattern': '(a+)+$', 'text': 'a' * 60 + 'b'}])" if busy else "sys.stdin.read()")
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 30
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(child)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_child_can_neither_write_files_nor_open_sockets_nor_start_programs(tmp_path: Path) -> None:
    """The confinement itself, tried from inside: a stand-in for code that broke out of the parser."""
    canary = tmp_path / "canary"
    script = f"""
import socket, subprocess, os, sys
out = os.dup(1)
from cures_core.rewards.child import _confine
_confine(512)
def tried(action):
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "done"
results = [
    tried(lambda: open({str(canary)!r}, "w").write("x")),
    tried(lambda: open("/etc/hostname").read()),
    tried(lambda: socket.socket()),
    tried(lambda: subprocess.run(["true"])),
    tried(lambda: os.system("touch {canary}")),
    tried(lambda: os.kill(os.getppid(), 0)),
]
os.write(out, " ".join(results).encode())
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert said.stdout == " ".join(["PermissionError"] * 6), said.stderr
    assert not canary.exists()


def test_child_gets_no_secrets(monkeypatch: pytest.MonkeyPatch, pool: Pool) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-value")
    pool.run([GOOD])
    assert b"canary-value" not in Path(f"/proc/{workers()[0]}/environ").read_bytes()


def test_frames_survive_any_cut() -> None:
    messages = [{"a": "é\ud800\x00"}, {}, {"b": "x" * 1000}]
    data = b"".join(pack(message) for message in messages)
    for size in (1, 3, 7, len(data)):
        frames = Frames()
        assert [m for i in range(0, len(data), size) for m in frames.feed(data[i : i + size])] == messages


def test_frames_refuse_nonsense() -> None:
    for data in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x02[]", b"\x00\x00\x00\x02{]"):
        with pytest.raises(ValueError):
            Frames().feed(data)
    with pytest.raises(ValueError, match="longer"):
        pack({"text": "x" * MAX_MESSAGE_BYTES})
