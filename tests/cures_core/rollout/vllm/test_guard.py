"""What belongs to a killed process goes with it; what belongs to a living one stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cures_core.rollout.vllm.guard import Guard

OWNER = """
import sys, time
from pathlib import Path
from cures_core.rollout.vllm.guard import Guard
guard = Guard(Path(sys.argv[2]))
guard.watch(int(sys.argv[1]))
print("ready", flush=True)
time.sleep(600)
"""

STARTING = """
import multiprocessing, sys, time
from pathlib import Path
from cures_core.rollout.vllm.guard import Guard
if __name__ == "__main__":
    guard = Guard(Path(sys.argv[1]))
    with guard.watching_new_children():
        child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
        child.start()
        time.sleep(1.0)
        print(child.pid, flush=True)
        time.sleep(600)
"""


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def test_a_killed_owner_takes_its_engine_and_weights_along(tmp_path: Path) -> None:
    engine, folder = sleeper(), tmp_path / "weights"
    (folder / "000001").mkdir(parents=True)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(engine.pid), str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    assert engine.poll() is None
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    assert engine.wait(timeout=30) == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()


def test_a_process_group_goes_as_a_whole(tmp_path: Path) -> None:
    leader = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
            "print(child.pid, flush=True)\ntime.sleep(600)",
        ],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert leader.stdout is not None
    child = int(leader.stdout.readline())
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(-leader.pid), str(tmp_path / "weights")], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    assert leader.wait(timeout=30) == -signal.SIGKILL
    leader.stdout.close()
    deadline = time.monotonic() + 30
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)


def test_an_owner_killed_while_it_starts_the_engine_takes_it_along(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", STARTING, str(tmp_path / "weights")], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 30
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    """False too for one that has ended and that nobody waits for."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_released_guard_touches_nothing(tmp_path: Path) -> None:
    engine = sleeper()
    guard = Guard(tmp_path)
    guard.watch(engine.pid)
    guard.release()
    time.sleep(0.5)
    assert engine.poll() is None
    assert tmp_path.exists()
    engine.kill()
    engine.wait()
