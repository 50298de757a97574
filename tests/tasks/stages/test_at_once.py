"""Different runs at once on one store: a stage that they share is done once, and never by two in one folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from cures_core.errors import LeaseLost, TryAgain
from tasks.progress import StageEnded, StageWaiting, listening
from tasks.runs.figures import PolicyFigures
from tasks.runs.notes import run_names, run_status, stage_record
from tasks.runs.opening import open_run
from tasks.stages import stage as stage_module
from tasks.stages.stage import Made, run_stage
from tasks.stages.workspace import Workspace
from tasks.storage import LocalStore
from tests.end_to_end.pipeline import PROJECT
from tests.tasks.stages.figures import made
from tests.tasks.stages.starts import RUNS, config_in, own, shared
from tests.tasks.stages.warm_starts import warm_start_stage

TRY_AGAIN = 76


def left_in(store: Path) -> list[str]:
    """Scratch work that is still there."""
    return [str(path) for path in (store / "scratch").rglob("*") if not path.is_dir()]


def job_at_work(parent: int, folder: Path) -> psutil.Process:
    """The one job of a process, once it has saved a step."""
    deadline = time.monotonic() + 120
    while not list((folder / "store" / "scratch").glob("*/*/*/scratch/step-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (job,) = (
        one
        for one in psutil.Process(parent).children(recursive=True)
        if one.ppid() != parent  # but of the process that jobs are forked from
    )
    return job


def test_twenty_starts_of_four_runs_that_share_a_stage(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.tasks.stages.starts", str(tmp_path), "20"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False)
    for i in range(20):
        folder = tmp_path / str(i)
        assert sorted((folder / "log").read_text().split()) == ["own"] * RUNS + ["shared"], done.stderr
        store = LocalStore(folder / "store")
        assert {run_status(store, name).status for name in run_names(store)} == {"completed"}
        records = [stage_record(store, name, PolicyFigures) for name in run_names(store)]
        assert len(records) == RUNS
        assert len({record.files for record in records if record is not None}) == 1
        assert len({key.rsplit("/", 1)[0] for key in store.list("artifacts")}) == 1 + RUNS
        assert left_in(folder / "store") == []
    assert done.returncode == 0, done.stderr


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stage_module, "_POLL_S", 0.05)
    return tmp_path


class Other:
    """A process that holds the shared stage for `seconds`, as another run; killed at the end of the block."""

    def __init__(self, folder: Path, seconds: float, ttl_s: float = 60.0) -> None:
        self.config = config_in(folder, 9e-4, ttl_s)
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                with open_run(self.config) as run:
                    shared(run, folder, seconds)
                code = 0
            except LeaseLost:
                code = 75
            except TryAgain:
                code = TRY_AGAIN
            finally:
                os._exit(code)
        log, deadline = folder / "log", time.monotonic() + 30
        while not (log.exists() and "shared" in log.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *_: object) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.ended()

    def stand_still(self) -> None:
        """Until the lease has run out."""
        os.kill(self.pid, signal.SIGSTOP)
        time.sleep(self.config.store.lease_ttl_s + 0.1)

    def ended(self) -> int:
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code


def test_the_second_is_told_who_it_waits_for_and_takes_the_result(folder: Path) -> None:
    events: list[Any] = []
    with Other(folder, 1.0) as other:
        with listening(events.append), open_run(config_in(folder, 1e-4)) as run:
            shared(run, folder)
        assert other.ended() == 0
    assert (folder / "log").read_text() == "shared\n"
    waiting = [event for event in events if isinstance(event, StageWaiting)]
    assert [event.stage for event in waiting] == ["prepare_policy"]
    assert f"process {other.pid}" in waiting[0].holder
    assert [e.cached for e in events if isinstance(e, StageEnded)] == [True]


def test_a_holder_that_dies_is_followed_at_once_in_its_folder(folder: Path) -> None:
    found: list[str] = []
    with Other(folder, 60.0) as other:
        os.kill(other.pid, signal.SIGKILL)
        other.ended()
    (left,) = (folder / "store" / "scratch" / "prepare_policy").glob("*/*/scratch/*")
    left.rename(left.with_name("step-000007"))

    def work(space: Workspace) -> Made[Any]:
        found.extend(path.name for path in space.scratch.iterdir())
        return made("prepare_policy")

    with open_run(config_in(folder, 1e-4)) as run:
        run_stage(run, PolicyFigures, 1, {"same": "for all"}, [], work)
    assert found == ["step-000007"]
    assert left_in(folder / "store") == []


def test_a_holder_that_stood_still_too_long_changes_nothing_of_its_successors_run(folder: Path) -> None:
    store = LocalStore(folder / "store")
    with Other(folder, 3.0, ttl_s=1.2) as other:
        other.stand_still()
        with open_run(other.config) as run:
            shared(run, folder)
            own(run, folder)
            os.kill(other.pid, signal.SIGCONT)
            assert other.ended() == LeaseLost.exit_code
            assert run_status(store, run.name).status == "running"
    assert (folder / "log").read_text().split() == ["shared", "shared", "own"]
    status = run_status(store, run.name)
    assert (status.status, status.token) == ("completed", run.token)
    assert left_in(folder / "store") == []


def test_where_only_the_stage_was_lost_the_run_tries_again_and_takes_the_result(folder: Path) -> None:
    with Other(folder, 3.0, ttl_s=1.2) as other:
        other.stand_still()
        with open_run(config_in(folder, 1e-4, ttl_s=1.2)) as run:
            shared(run, folder)
        os.kill(other.pid, signal.SIGCONT)
        assert other.ended() == TRY_AGAIN
    assert TryAgain.retryable
    with open_run(other.config) as again:
        shared(again, folder)
    assert (folder / "log").read_text() == "shared\nshared\n"
    assert left_in(folder / "store") == []


@pytest.mark.end_to_end
@pytest.mark.parametrize("whole_group", [False, True])
def test_the_job_of_a_holder_that_stands_still_ends_when_its_work_is_taken_over(
    folder: Path, whole_group: bool
) -> None:
    config = config_in(folder, 1e-4, ttl_s=3)
    command = [sys.executable, "-m", "tests.tasks.stages.warm_starts", str(folder)]
    with subprocess.Popen(command, cwd=PROJECT, start_new_session=True) as first:
        try:
            job = job_at_work(first.pid, folder)
            stopped = [first.pid, job.pid] if whole_group else [first.pid]
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            time.sleep(config.store.lease_ttl_s + 0.1)
            with open_run(config) as run:
                made = warm_start_stage(run, steps=400)
                if not whole_group:
                    psutil.wait_procs([job], timeout=10)
                    assert not job.is_running() or job.status() == psutil.STATUS_ZOMBIE
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            assert first.wait(60) == LeaseLost.exit_code
        finally:
            first.kill()  # it may stand still, and would be waited for
    assert not job.is_running()
    assert made.figures.steps == 400
    assert run_status(LocalStore(folder / "store"), run.name).status == "completed"
    assert left_in(folder / "store") == []


def test_a_job_whose_parent_dies_ends_itself(folder: Path) -> None:
    command = [sys.executable, "-m", "tests.tasks.stages.warm_starts", str(folder)]
    with subprocess.Popen(command, cwd=PROJECT, start_new_session=True) as parent:
        job = job_at_work(parent.pid, folder)
        parent.kill()
    gone, _ = psutil.wait_procs([job], timeout=15)
    for left in {job} - set(gone):
        left.kill()
    assert gone == [job]
