"""Jobs are forked from a process that has done their imports, and are processes of their own as if they were not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from cures_core.config.loading import load_config
from cures_core.errors import ChildFailed, Preempted
from cures_core.events import JobEvent
from cures_core.files import digest_folder
from cures_core.jobs.spec import Job
from tasks.stages import job_start
from tasks.stages.job_process import run_job
from tasks.stages.job_start import Forked, Spawned, forks, start_job
from tests.end_to_end.pipeline import PROJECT, write_profile


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A warm start of twelve steps."""
    config = load_config(write_profile(tmp_path), ["policy.steps=12", "policy.checkpoint_every=3"])
    return Job(name="warm_start", config=config, scratch=tmp_path / "scratch", out=tmp_path / "out")


def server() -> psutil.Process:
    assert job_start._server is not None
    return psutil.Process(job_start._server._process.pid)


def never(job: Job) -> Job:
    """One that does not end by itself."""
    config = load_config(job.scratch.parent / "tiny.toml", ["policy.steps=1000000"])
    return job.model_copy(update={"config": config})


def test_a_forked_job_makes_the_bytes_of_one_that_is_started_anew(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    run_job(job)
    forked = digest_folder(job.out / "policy")
    monkeypatch.setattr(job_start, "forks", lambda _: False)
    run_job(job)
    assert digest_folder(job.out / "policy") == forked


def test_jobs_come_from_one_server_each_in_its_own_process_session_and_folder(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    folders: list[Path] = []

    def look(_: JobEvent) -> None:
        if len(seen) < len(folders):
            (child,) = server().children()
            seen.append({**child.as_dict(["pid", "ppid", "cmdline", "cwd"]), "session": os.getsid(child.pid)})
            os.kill(child.pid, signal.SIGTERM)

    for name in "ab":
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        monkeypatch.chdir(folders[-1])
        with pytest.raises(Exception, match="asked to stop"):
            run_job(never(job), look)
    assert [one["cwd"] for one in seen] == [str(folder) for folder in folders]
    assert all(one["session"] == one["pid"] for one in seen)
    assert {one["ppid"] for one in seen} == {server().pid}
    for one in seen:
        assert " ".join(one["cmdline"]).split()[-2:] == ["cures_core.jobs", f"{job.scratch}/job.json"]


def test_a_job_s_environment_is_sent_in_memory_and_on_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "sk-0123456789")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, (tmp_path / "log").open("ab") as log:
        child = Forked(ours, tmp_path / "job.json", log)
        _, sent, _, _ = socket.recv_fds(theirs, 1, 5)
        assert os.pread(sent[0], 1 << 20, 0).count(b"sk-0123456789") == 1
        assert str(Path(f"/proc/self/fd/{sent[0]}").readlink()).startswith("/memfd:")
        for fd in sent:
            os.close(fd)
        child.close()


def test_the_end_of_the_server_is_the_end_of_its_jobs_and_told_as_such(job: Job) -> None:
    killed: list[int] = []

    def kill(_: JobEvent) -> None:
        if not killed:
            killed.extend(child.pid for child in server().children())
            server().kill()

    with pytest.raises(ChildFailed, match="SIGKILL"):
        run_job(never(job), kill)
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in killed):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run_job(job)  # from another one


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_where_all_processes_are_asked_to_stop_at_once_the_job_saves_what_it_has(job: Job, number: int) -> None:
    """As systemd stops a worker, and a terminal a command."""
    asked: list[psutil.Process] = []

    def stop_all(_: JobEvent) -> None:
        if not asked:
            asked.extend([server(), *server().children()])
            for process in asked:
                process.send_signal(number)

    with pytest.raises(Preempted, match="asked to stop; saved"):
        run_job(never(job), stop_all)
    assert asked[0].is_running()


def test_a_job_that_is_asked_to_stop_as_it_begins_does_so_in_good_order(job: Job) -> None:
    job.scratch.mkdir()
    spec = job.scratch / "job.json"
    spec.write_text(never(job).model_dump_json())
    with (job.scratch / "log").open("ab") as log:
        child = start_job(job, spec, log)
        assert isinstance(child, Forked)
        child.terminate()
        assert child.wait(60) == Preempted.exit_code
        child.close()


def test_nothing_is_left_where_the_parent_is_killed(job: Job, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cures_core.jobs.spec import Job\n"
        "from tasks.stages.job_process import run_job\n"
        "run_job(Job.model_validate_json(Path(sys.argv[1]).read_bytes()), lambda _: print('at work', flush=True))"
    )
    (tmp_path / "spec.json").write_text(never(job).model_dump_json())
    command = [sys.executable, "-c", code, str(tmp_path / "spec.json")]
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        below = psutil.Process(parent.pid).children(recursive=True)
        assert len(below) >= 2
        parent.kill()
    assert psutil.wait_procs(below, timeout=20)[1] == []


def test_where_there_may_be_a_gpu_a_job_is_started_anew(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on(device: str) -> Job:
        config = job.config.model_copy(update={"device": job.config.device.model_copy(update={"type": device})})
        return job.model_copy(update={"config": config})

    monkeypatch.setattr(job_start, "_GPU_DRIVERS", (tmp_path / "nvidiactl",))
    assert [forks(on(device).config) for device in ("auto", "cpu", "cuda")] == [True, True, False]
    (tmp_path / "nvidiactl").touch()
    assert [forks(on(device).config) for device in ("auto", "cpu", "cuda")] == [False, True, False]
    with (tmp_path / "log").open("ab") as log:
        for device, kind in (("auto", Spawned), ("cpu", Forked)):
            child = start_job(on(device), tmp_path / "job.json", log)
            assert type(child) is kind
            child.kill()
            assert child.wait(20) != 0
            child.close()


def test_another_environment_gets_another_server_however_large_it_is(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    first = server().pid
    for i in range(8):
        monkeypatch.setenv(f"CURES_TEST_LARGE_{i}", "x" * 100_000)  # more than a message over a socket may hold
    run_job(job)
    assert (job.out / "policy" / "model.safetensors").exists()
    assert server().pid != first
    assert not psutil.pid_exists(first)
