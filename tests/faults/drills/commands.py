"""Faults of the real command, `cures run`: struck at random instants, two at once, on a disk that fills up, over S3."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.runs.notes import run_names
from tasks.storage import LocalStore, S3Store
from tests.end_to_end.pipeline import PROJECT, cures, results, results_in, write_profile
from tests.end_to_end.processes import kill_tree
from tests.faults.drills.stores import Weather, damage_in
from tests.faults.harness import Try
from tests.faults.invariants import check_store
from tests.tasks.storage.servers import BUCKET, FaultyServer, moto

OTHER_RATE = ("--set", "training.learning_rate=5e-4")
WAIT_S = 900


class Undisturbed:
    """What the command makes with nobody in its way, with the learning rate of the profile or another one."""

    def __init__(self, bench: Path, *settings: str) -> None:
        self.folder = bench / f"run-{len(settings)}"
        self.folder.mkdir()
        started = time.monotonic()
        outcome = cures("run", "--config", write_profile(self.folder), *settings, "--json", cwd=self.folder)
        self.seconds = time.monotonic() - started
        assert outcome.code == 0, outcome.err
        self.run = str(outcome.summary["run"])
        self.digests = results(self.folder, self.run)
        assert len(self.digests) >= 12


undisturbed = cache(Undisturbed)


@contextlib.contextmanager
def started(folder: Path, *words: object, logs: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """`cures run` in `folder`; what it prints goes to out.txt and err.txt there, or in `logs`. Killed at the end of the
    block."""
    logs = logs or folder
    command = [sys.executable, "-m", "flows.cli.main", "run", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with (logs / "out.txt").open("ab") as out, (logs / "err.txt").open("ab") as err:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=err, start_new_session=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                kill_tree(process.pid)
                process.wait()


def outcome(folder: Path, *words: object) -> int:
    with started(folder, *words) as process:
        return process.wait(WAIT_S)


def check_run(folder: Path, calm: Undisturbed) -> None:
    """The same bytes, every snapshot, nothing left over, and a status that is true."""
    assert results(folder, calm.run) == calm.digests, "other bytes than the undisturbed run"
    git = ["git", "--git-dir", str(folder / ".cures" / "snapshots.git"), "tag"]
    tags = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split()
    assert [tag for tag in tags if calm.run in tag] == [f"posterior/{calm.run}/{k}" for k in range(3)]
    check_store(folder / ".cures", LocalStore(folder / ".cures"))


def said(folder: Path) -> str:
    return (folder / "err.txt").read_text(errors="replace")[-1500:]


def kill_command(t: Try) -> Mapping[str, int]:
    """SIGKILL at random instants: to the command, to all of its processes at once, or to the job that it waits for."""
    calm, profile = undisturbed(t.bench), write_profile(t.folder)
    counts = {"command": 0, "everything": 0, "a_job": 0}
    for _ in range(int(t.rng.integers(1, 4))):
        who = sorted(counts)[int(t.rng.integers(3))]
        with started(t.folder, "--config", profile) as process:
            try:
                process.wait(float(t.rng.uniform(0.5, calm.seconds)))
                break
            except subprocess.TimeoutExpired:
                counts[who] += strike(process, who)
            if who == "a_job":
                assert process.wait(WAIT_S) == 0, said(t.folder)  # it starts the job again by itself
                break
            process.wait(60)
    assert outcome(t.folder, "--config", profile) == 0, said(t.folder)
    check_run(t.folder, calm)
    return {**counts, "kills": sum(counts.values())}


def strike(process: subprocess.Popen[bytes], who: str) -> int:
    """Kill; returns how many were there to be killed."""
    if who == "everything":
        kill_tree(process.pid)
        return 1
    if who == "command":
        process.kill()
        return 1
    jobs = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "cures_core.jobs " in " ".join(child.cmdline())
    ]
    for job in jobs:
        job.kill()
    return min(1, len(jobs))


def stop_command(t: Try) -> Mapping[str, int]:
    """SIGTERM or Ctrl-C at random instants, asked once or twice: exit code 75 with the way to go on, within 45 s."""
    calm, profile = undisturbed(t.bench), write_profile(t.folder)
    stops = 0
    for _ in range(int(t.rng.integers(1, 4))):
        number = (signal.SIGTERM, signal.SIGINT)[int(t.rng.integers(2))]
        with started(t.folder, "--config", profile) as process:
            try:
                process.wait(float(t.rng.uniform(4.0, calm.seconds)))
                break
            except subprocess.TimeoutExpired:
                process.send_signal(number)
            if t.rng.random() < 0.5:
                time.sleep(0.1)
                process.send_signal(number)
            code = process.wait(45)
            if code == 0:
                break
            assert code == 75 or (code < 0 and not (t.folder / ".cures" / "runs").exists()), (code, said(t.folder))
            assert "Traceback" not in said(t.folder)
            stops += 1
    assert outcome(t.folder, "--config", profile) == 0, said(t.folder)
    check_run(t.folder, calm)
    return {"stops": stops}


def duplicate_starts(t: Try) -> Mapping[str, int]:
    """The same command three times at random distances: one works, the others are told who holds the run, or find it
    done."""
    calm, profile = undisturbed(t.bench), write_profile(t.folder)
    processes, codes = [], []
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            processes.append(stack.enter_context(started(t.folder, "--config", profile)))
            time.sleep(float(t.rng.uniform(0, 0.3 * calm.seconds)))
        codes = [process.wait(WAIT_S) for process in processes]
    assert set(codes) <= {0, 75}, (codes, said(t.folder))
    assert 0 in codes
    check_run(t.folder, calm)
    return {"told_who_holds_it": codes.count(75)}


def side_by_side(t: Try) -> Mapping[str, int]:
    """Two runs that differ in the learning rate, on one store, at a random distance; one of them may be killed: what
    they share is made once, and each ends as it would alone."""
    calm, other = undisturbed(t.bench), undisturbed(t.bench, *OTHER_RATE)
    profile, killed = write_profile(t.folder), bool(t.rng.random() < 0.5)
    with (
        started(t.folder, "--config", profile) as first,
        contextlib.ExitStack() as stack,
    ):
        time.sleep(float(t.rng.uniform(0, 0.5 * calm.seconds)))
        second = stack.enter_context(started(t.folder, "--config", profile, *OTHER_RATE))
        if killed:
            with contextlib.suppress(subprocess.TimeoutExpired):
                first.wait(float(t.rng.uniform(1, calm.seconds)))
            if first.poll() is None:
                kill_tree(first.pid)
            first.wait(60)
        else:
            assert first.wait(WAIT_S) == 0, said(t.folder)
        assert second.wait(WAIT_S) == 0, said(t.folder)
    assert outcome(t.folder, "--config", profile) == 0, said(t.folder)
    check_run(t.folder, calm)
    check_run(t.folder, other)
    store = t.folder / ".cures"
    made = {name: len(list((store / "artifacts" / name).iterdir())) for name in ("prepare_policy", "estimate_prior")}
    assert made == {"prepare_policy": 1, "estimate_prior": 1}
    return {"killed": int(killed)}


def damage_store(t: Try) -> Mapping[str, int]:
    """The store of a whole run, with its snapshots; every kind of file that somebody relies on."""
    calm = undisturbed(t.bench)
    return damage_in(t, calm.folder / ".cures", calm.run)


def full_disk(t: Try) -> Mapping[str, int]:
    """Something else fills the disk at a random instant of the run, or it is too small from the start: an error that
    says so, nothing committed is lost; with room made, the same command ends with the same bytes."""
    calm = undisturbed(t.bench)
    small = bool(t.rng.random() < 0.2)
    disk = t.folder / "disk"
    with small_disk(disk, 2**20 if small else 2**30):
        profile, others = write_profile(disk), disk / "others"
        with started(disk, "--config", profile, logs=t.folder) as process:  # its last words need room
            if not small:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(float(t.rng.uniform(0.5, calm.seconds)))
                fill(others, left=int(t.rng.integers(0, 2**18)))
            code = process.wait(WAIT_S)
        words = said(t.folder)
        if code:
            assert any(told in words for told in ("No space left", "disk is full", " free, and the run")), (code, words)
            assert "Traceback" not in words
        assert code or not small
        others.unlink(missing_ok=True)
        subprocess.run(["mount", "-o", "remount,size=2g", str(disk)], check=True)
        assert outcome(disk, "--config", profile) == 0, said(disk)
        check_run(disk, calm)
    return {"too_small": int(small), "filled": int(code != 0 and not small), "done_before": int(code == 0)}


def fill(path: Path, left: int) -> None:
    """A file that takes all room of its disk but `left` bytes."""
    room = os.statvfs(path.parent)
    with path.open("wb") as f, contextlib.suppress(OSError):  # others write meanwhile
        os.posix_fallocate(f.fileno(), 0, max(1, room.f_bavail * room.f_frsize - left))


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[None]:
    """A disk of so many bytes, in memory; skips where this process may not mount one."""
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


S3_FAULTS: tuple[Any, ...] = ((503, "SlowDown"), (500, "InternalError"), "lose", "cut", "slow")


def s3_command(t: Try) -> Mapping[str, int]:
    """A whole run over an S3 that is slow, refuses, and loses or cuts answers; killed once, it goes on with an empty
    disk."""
    calm = undisturbed(t.bench)
    weather = Weather(t.rng, S3_FAULTS, float(t.rng.uniform(0.02, 0.15)))
    snapshots = t.folder / "snapshots.git"
    with moto() as behind, FaultyServer(behind, weather) as server:
        place = f"s3://{BUCKET}/{t.folder.name}"  # servers of one process share what they hold
        places = ("--store", place, "--set", f"store.endpoint_url={server.url}",
                  "--set", f"snapshot.repository={snapshots}", "--set", "store.lease_ttl_s=5")  # fmt: skip
        machine = t.folder / "a"
        machine.mkdir()
        killed = False
        with started(machine, "--config", write_profile(machine), *places) as process:
            try:
                process.wait(float(t.rng.uniform(5, 1.5 * calm.seconds)))
            except subprocess.TimeoutExpired:
                kill_tree(process.pid)
                killed = True
            process.wait(60)
        empty = t.folder / "b"
        empty.mkdir()
        assert outcome(empty, "--config", write_profile(empty), *places) == 0, said(empty)
        weather.calm = True
        store = S3Store(place, t.folder / "watcher", behind)
        (run,) = run_names(store)
        assert results_in(store, run) == calm.digests, "other bytes than the undisturbed run"
        assert list(store.list("unfinished")) == []
    return {"faults": weather.faults, "killed": int(killed)}
