"""Faults of a job: `python -m cures_core.jobs` under its real parent, without Prefect; quick ones in this process."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from safetensors.torch import load_file

from cures_core.checkpoints.in_epoch import latest_step
from cures_core.errors import (
    ChildFailed,
    CorruptArtifact,
    CuresError,
    OutOfMemory,
    Preempted,
    SystemRefused,
    TrainingDiverged,
    TryAgain,
)
from cures_core.events import JobEvent
from cures_core.jobs.spec import Job, JobName
from cures_core.prompts import PromptSet
from cures_core.prompts.identity import make_prompt
from cures_core.training.updaters import AdamW
from tasks.stages.job_process import run_job
from tests.cures_core.jobs.epochs import make_job
from tests.end_to_end.pipeline import digests_of
from tests.end_to_end.processes import jobs_of
from tests.faults.harness import Try
from tests.recorded.run import NoParent

JOBS: tuple[JobName, ...] = ("warm_start", "prior", "epoch", "evaluate")
STEPS = 6
OPTIONS: dict[str, Any] = {
    "checkpoint_every": 1,
    "policy": {"type": "warm-start", "hidden_size": 32, "layers": 1, "heads": 2, "steps": 60, "batch": 16,
               "checkpoint_every": 10},
    "prior": {"type": "sample", "budget": 64, "rollouts_per_prompt": 2, "chunk_prompts": 4},
    "evaluation": {"suites": [{"name": "exam", "path": "unused", "samples": 2, "greedy": True}], "resamples": 100,
                   "chunk_prompts": 4},
    "device": {"type": "cpu", "threads": 1},
}  # fmt: skip


@cache
def _inputs(bench: Path) -> Job:
    job = make_job(bench / "inputs", {}, STEPS, **OPTIONS)
    prompts = [make_prompt(f"{i}+{i % 7}=", str(i % 10), source="made", level="0") for i in range(16)]
    (bench / "inputs" / "suites").mkdir()
    PromptSet.of(prompts).write_parquet(bench / "inputs" / "suites" / "exam.parquet")
    return job.model_copy(update={"suites": bench / "inputs" / "suites"})


def job_in(name: JobName, folder: Path, bench: Path) -> Job:
    return _inputs(bench).model_copy(update={"name": name, "scratch": folder / "scratch", "out": folder / "out"})


class Undisturbed:
    """What a job makes with nobody in its way, and how long that takes: from its start, and to its first event."""

    def __init__(self, name: JobName, bench: Path) -> None:
        job, first = job_in(name, bench / name, bench), list[float]()
        started = time.monotonic()
        run_job(job, lambda _: first.append(time.monotonic()))
        self.seconds = time.monotonic() - started
        self.first_event = (first[0] if first else time.monotonic()) - started
        self.digests = digests_of(job.out)
        assert self.digests


undisturbed = cache(Undisturbed)


def interrupted(job: Job, after: float, number: signal.Signals) -> CuresError | None:
    """Run a job, send it a signal that many seconds after its start; what its parent makes of its end, None where it
    was done before."""

    def strike() -> None:
        for pid in jobs_of(job.scratch):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    timer = threading.Timer(after, strike)
    timer.start()
    try:
        run_job(job, lambda _: None)
    except CuresError as error:
        return error
    finally:
        timer.cancel()
        timer.join()
    return None


def an_instant(t: Try, calm: Undisturbed) -> float:
    """Mostly while it works, sometimes while it starts."""
    low = 0.0 if t.rng.random() < 0.15 else 0.9 * calm.first_event
    return float(t.rng.uniform(low, 1.02 * calm.seconds))


def struck(t: Try, number: signal.Signals, expected: type[CuresError]) -> Mapping[str, int]:
    """Struck once or twice and started again each time, a job ends with the bytes of an undisturbed one."""
    name = JOBS[int(t.rng.integers(len(JOBS)))]
    calm, job = undisturbed(name, t.bench), job_in(name, t.folder, t.bench)
    strikes = 0
    for _ in range(int(t.rng.integers(1, 3))):
        error = interrupted(job, an_instant(t, calm), number)
        if error is None:
            break
        assert isinstance(error, expected), f"{type(error).__name__}: {error}"
        assert error.retryable
        strikes += 1
    else:
        run_job(job, lambda _: None)
    assert digests_of(job.out) == calm.digests, f"{name}: other bytes"
    assert not [path for path in t.folder.rglob("*.tmp") if path.is_file() and path.parent == job.out]
    return {f"{name}_strikes": strikes, "strikes": strikes}


def kill_job(t: Try) -> Mapping[str, int]:
    return struck(t, signal.SIGKILL, ChildFailed)


def stop_job(t: Try) -> Mapping[str, int]:
    return struck(t, signal.SIGTERM, Preempted)


SAVES = ("half_written", "before_manifest", "before_rename")


def kill_save(t: Try) -> Mapping[str, int]:
    """Killed within the saving of a checkpoint, once at each of one to three boundaries."""
    calm, job = undisturbed("epoch", t.bench), job_in("epoch", t.folder, t.bench)
    number = int(t.rng.integers(1, 4))
    steps = sorted(t.rng.choice(np.arange(1, STEPS + 1), number, replace=False).tolist())
    faults = [f"checkpoint.{SAVES[int(t.rng.integers(3))]}:{step}=kill" for step in steps]
    with environment({"CURES_FAULTS": ",".join(faults), "CURES_FAULTS_DIR": str(t.folder / "fired")}):
        for _ in faults:
            try:
                run_job(job, lambda _: None)
            except ChildFailed:
                found = latest_step(job.scratch) if any(job.scratch.glob("step-*")) else None
                assert found is None or found.step in range(1, STEPS + 1)
                continue
            raise AssertionError(f"not killed at {faults}")
        run_job(job, lambda _: None)
    assert digests_of(job.out) == calm.digests
    left = [path.name for path in job.scratch.rglob("*") if ".tmp" in path.name]
    assert left == [], f"half a checkpoint is left: {left}"
    return {"kills": number}


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


# In this process: the same jobs, without the seconds that a process takes to start.


class Patient(NoParent):
    """Asks the job to stop at its `patience`-th opportunity."""

    def __init__(self, patience: float = float("inf")) -> None:
        super().__init__()
        self._left = patience

    def emit(self, event: JobEvent) -> None:
        """Nobody listens."""

    def stop_if_asked(self, done: str) -> None:
        self._left -= 1
        if self._left < 0:
            raise Preempted(f"saved {done}")

    @property
    def stop_requested(self) -> bool:
        return self._left < 1


def here(job: Job, parent: NoParent) -> None:
    """As `run_job` does in a process of its own."""
    shutil.rmtree(job.out, ignore_errors=True)
    for folder in (job.out, job.scratch):
        folder.mkdir(parents=True, exist_ok=True)
    importlib.import_module(f"cures_core.jobs.{job.name}").run(job, parent)


@cache
def undisturbed_here(name: JobName, bench: Path) -> dict[str, str]:
    job = job_in(name, bench / "here" / name, bench)
    here(job, Patient())
    return digests_of(job.out)


def damage_unfinished(t: Try) -> Mapping[str, int]:
    """A file of the work that a stopped job has saved is damaged before it goes on: made again or told, never used."""
    name = JOBS[int(t.rng.integers(len(JOBS)))]
    calm, job = undisturbed_here(name, t.bench), job_in(name, t.folder, t.bench)
    with contextlib.suppress(Preempted):
        here(job, Patient(int(t.rng.integers(1, 5))))
    files = [path for path in sorted(job.scratch.rglob("*")) if path.is_file() and path.stat().st_size]
    if not files:
        files = [path for path in sorted(job.out.rglob("*")) if path.is_file() and path.stat().st_size]
    damage(files[int(t.rng.integers(len(files)))], t.rng)
    told = ""
    try:
        here(job, Patient())
    except CorruptArtifact as error:
        told = str(error)
        shutil.rmtree(job.scratch)
        here(job, Patient())
    assert digests_of(job.out) == calm, f"{name}: other bytes"
    assert not told or "To begin this stage afresh: rm -r" in told
    return {"told": int(bool(told)), "made_again": int(not told)}


def damage(path: Path, rng: np.random.Generator) -> None:
    """Flip a bit, cut the end off, or remove the file."""
    kind, data = rng.random(), bytearray(path.read_bytes())
    if kind < 0.6:
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    elif kind < 0.85:
        del data[int(rng.integers(len(data))) :]
    path.unlink()
    if kind < 0.85:
        path.write_bytes(data)


def stop_here(t: Try) -> Mapping[str, int]:
    """Stopped at several opportunities in a row, among them the last step of the epoch: the order of samples and every
    byte are those of an undisturbed epoch."""
    name = JOBS[int(t.rng.integers(len(JOBS)))]
    calm, job = undisturbed_here(name, t.bench), job_in(name, t.folder, t.bench)
    stops = 0
    for _ in range(int(t.rng.integers(2, 6))):
        try:
            here(job, Patient(int(t.rng.integers(1, 4))))
            break
        except Preempted:
            stops += 1
    else:
        here(job, Patient())
    assert digests_of(job.out) == calm, f"{name}: other bytes"
    return {"stops": stops}


def not_finite(t: Try) -> Mapping[str, int]:
    """The loss, or a gradient, of a random step is NaN or infinite: that step changes nothing, is counted, and no saved
    weight is anything but finite; where it stays so, training ends and says from which checkpoint to go on."""
    job = job_in("epoch", t.folder, t.bench)
    first, lasting = int(t.rng.integers(STEPS)), bool(t.rng.random() < 0.3)
    value, in_loss = float(t.rng.choice([np.nan, np.inf, -np.inf])), bool(t.rng.random() < 0.5)
    with spoilt(lambda step: step == first or (lasting and step > first), value, in_loss) as steps:
        diverged = ""
        try:
            here(job, Patient())
        except TrainingDiverged as error:
            diverged = str(error)
    assert steps[0] > first
    assert not diverged or (lasting and "cures run --resume RUN --set training.learning_rate=" in diverged)
    folder = job.scratch if diverged else job.out
    weights = list(folder.rglob("weights*.safetensors"))
    assert weights
    for path in weights:
        for name, tensor in load_file(path).items():
            assert bool(torch.isfinite(tensor).all()), f"{path}: {name}"
    if not diverged:
        rows = [json.loads(line) for line in (job.out / "checkpoint" / "metrics.jsonl").read_bytes().splitlines()]
        assert sum(row["non_finite"] for row in rows) == (STEPS - first if lasting else 1), rows
        assert all(row["updated"] == 0 for row in rows if row["non_finite"])
    return {"diverged": int(bool(diverged)), "skipped": int(not diverged)}


@contextlib.contextmanager
def spoilt(when: Callable[[int], bool], value: float, in_loss: bool) -> Iterator[list[int]]:
    """In the steps that `when` tells, the loss or one entry of a gradient is `value`; gives the number of steps."""
    steps, backward, step = [0], AdamW.backward, AdamW.step

    def backward_(self: AdamW, loss: Any) -> None:
        bad = when(steps[0])
        backward(self, loss * value if bad and in_loss else loss)
        if bad and not in_loss:
            gradient = self._stepped[0].grad
            assert gradient is not None
            gradient.view(-1)[0] = value

    def step_(self: AdamW, rate: float, loss: float) -> tuple[float, bool]:
        steps[0] += 1
        return step(self, rate, loss)

    AdamW.backward, AdamW.step = backward_, step_  # type: ignore[method-assign]
    try:
        yield steps
    finally:
        AdamW.backward, AdamW.step = backward, step  # type: ignore[method-assign]


# Limits of the process.


def limits(t: Try) -> Mapping[str, int]:
    """Too little memory, too few descriptors or too small files for the job: an error that says so, and with the limit
    gone the bytes of an undisturbed job."""
    name = JOBS[int(t.rng.integers(len(JOBS)))]
    calm, job = undisturbed(name, t.bench), job_in(name, t.folder, t.bench)
    kind = ("memory", "descriptors", "file_size")[int(t.rng.integers(3))]
    limit, value = {
        "memory": (resource.RLIMIT_DATA, int(t.rng.integers(20, 900)) << 20),
        "descriptors": (resource.RLIMIT_NOFILE, int(t.rng.integers(8, 40))),
        "file_size": (resource.RLIMIT_FSIZE, int(t.rng.integers(1 << 10, 1 << 17))),
    }[kind]
    error: CuresError | None = None
    with limited(job, limit, value):
        try:
            run_job(job, lambda _: None)
        except CuresError as found:
            error = found
    assert error is None or says(error, kind), f"{kind} {value}: {type(error).__name__}: {error}"
    if error is not None:
        run_job(job, lambda _: None)
    assert digests_of(job.out) == calm.digests, f"{name}: other bytes"
    return {f"{kind}_told": int(error is not None), f"{kind}_enough": int(error is None)}


LIMIT_WORDS = {
    "memory": r"memory|room for more processes|SIG(KILL|SEGV|ABRT|BUS|ILL|TRAP)",
    "descriptors": r"files? (at once|descriptor|are open)|open files|descriptors|RLIMIT_NOFILE",
    "file_size": r"file size|File too large|RLIMIT_FSIZE|SIGXFSZ",
}
"""What an error says of a limit; natural ends of a process that memory is taken from in the midst are signals."""


def says(error: CuresError, kind: str) -> bool:
    """Is it of a class that a limit ends in, and does it say which? A child that dies without a word is told by its
    signal."""
    known = isinstance(error, (OutOfMemory, SystemRefused, TryAgain, ChildFailed))
    return known and re.search(LIMIT_WORDS[kind], str(error)) is not None


@contextlib.contextmanager
def limited(job: Job, limit: int, value: int) -> Iterator[None]:
    """Limit the job's process as soon as it is there."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            for pid in jobs_of(job.scratch):
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).rlimit(limit, (value, value))
                    return

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
