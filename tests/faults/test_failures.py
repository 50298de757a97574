"""One drill a row of the table of failures: the cause happens in a job's process; class, retry, exit code and message.

Drills are in `site/drill.py`. They run through the real `python -m cures_core.jobs` and its real parent.
"""

from __future__ import annotations

import ast
import errno
import os
import re
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pytest
import torch
from prefect.states import Failed
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import Tokenizer

from cures_core import errors, failures
from cures_core.config.loading import load_config
from cures_core.errors import (
    ChildFailed,
    ConfigError,
    CorruptArtifact,
    CuresError,
    CurriculumMisuse,
    DataRejected,
    EngineFailed,
    InjectedFault,
    KilledForMemory,
    LeaseHeld,
    LeaseLost,
    MissingExtra,
    MissingInput,
    OutOfMemory,
    Preempted,
    RankLost,
    RunIncomplete,
    ServerRefused,
    ServerUnavailable,
    StoreUnavailable,
    SystemRefused,
    TrainingDiverged,
    TryAgain,
    UnexpectedError,
)
from cures_core.failure_report import read_report, write_report
from cures_core.failures import TABLE, Scene, failure_of, machine_failure
from cures_core.jobs.spec import Job
from cures_core.oom_kills import oom_kills
from tasks.stages import job_process
from tasks.stages.job_process import run_job
from tasks.stages.stage import retryable
from tests.end_to_end.pipeline import PROJECT, cures, write_profile

SITE = Path(__file__).with_name("site")
RUN = r"cures run --resume RUN"


@dataclass(frozen=True)
class Drill:
    """What must become of a cause. `code` is the exit code of the command; `child` of the job's process, if another."""

    name: str
    error: type[CuresError]
    retried: bool
    code: int
    says: str
    child: int | None = None


OF_CAUSE = {
    "configuration or command line is wrong": [
        Drill("bad_setting", ConfigError, False, 2, "seed.*greater than or equal to 0"),
    ],
    "prompts or a suite are rejected": [
        Drill("garbage_prompts", DataRejected, False, 3, "not a readable Parquet file"),
    ],
    "a file, folder or model that was named is missing": [
        Drill("no_prompts", MissingInput, False, 2, "none.parquet: no such prompt set"),
    ],
    "an optional package is not installed": [
        Drill("no_package", MissingExtra, False, 2, r"pip install 'cures\[pipeline\]'"),
    ],
    "a module of an optional part is imported, and is not there": [
        Drill("no_slice", MissingExtra, False, 2, r"No module named 'peft'.*with: pip install 'cures\[train\]'"),
    ],
    "stored bytes are damaged or gone": [
        Drill("damaged_bytes", CorruptArtifact, False, 1, "not a readable Parquet file .*make it again"),
    ],
    "a curriculum is told what it did not ask for": [
        Drill("told_twice", CurriculumMisuse, False, 1, "still to be told"),
    ],
    "loss or gradient stay non-finite": [
        Drill("diverged", TrainingDiverged, False, 1, f"healthy.*{RUN} --set training.learning_rate=0.0005"),
    ],
    "a rollout engine dies or does not answer": [
        Drill("silent_engine", EngineFailed, True, 1, "waited 0.3 s for the next decoding step"),
    ],
    "the store does not answer, or git, DVC or pip fail for the moment": [
        Drill("silent_store", StoreUnavailable, True, 1, "no success in .*nothing committed is lost"),
    ],
    "another rank of a distributed epoch is gone or late": [
        Drill("lonely_rank", RankLost, True, 1, r"waited 0.5 s for ranks \[1\] of 2"),
    ],
    "a collective of torch breaks off (gloo, NCCL)": [
        Drill("broken_collective", RankLost, True, 1, f"Connection (closed|reset) by peer.*Another rank is.*{RUN}"),
    ],
    "the run is held by another process": [
        Drill("held_run", LeaseHeld, False, 75, "run tiny-1 is held by"),
    ],
    "the run was taken over by another process": [
        Drill("taken_run", LeaseLost, False, 75, "tiny-1"),
    ],
    "a job is asked to stop (SIGTERM), and its step is saved": [
        Drill("asked_to_stop", Preempted, True, 75, "asked to stop; saved step 5"),
    ],
    "a server (Prefect, S3) refuses what it is asked to do": [
        Drill("refused_request", ServerRefused, False, 1, "/deployments: answered 404: no such thing"),
    ],
    "a flow run that was waited for has not completed": [
        Drill("late_run", RunIncomplete, False, 1, "change k: after 0 s no run was created. Is the deployment"),
    ],
    "not now: another process changes a file, key or pointer, or took the stage over": [
        Drill("changing_prompts", TryAgain, True, 75, "changed while it was read"),
    ],
    "a drill (`faults`)": [
        Drill("injected", InjectedFault, False, 1, "fault injected at here"),
    ],
    "memory runs out: Python, Arrow, torch, CUDA; update, rollout, evaluation, loading": [
        Drill("python_memory", OutOfMemory, False, 1, "warm_start: MemoryError. Not enough memory.*policy.batch=16"),
        Drill("torch_memory", OutOfMemory, False, 1, "can't allocate memory.*policy.batch=16"),
        Drill("mapped_memory", OutOfMemory, False, 1, "Cannot allocate memory.*policy.batch=16"),
        Drill("arrow_memory", OutOfMemory, False, 1, "set.parquet: malloc of size .*Not enough memory"),
        Drill("real_warm_start", OutOfMemory, False, 1, "Not enough memory.*policy.batch=16"),
    ],
    "the kernel kills a process for lack of memory": [
        Drill("kernel_killed", KilledForMemory, True, 1, f"ended by SIGKILL. The kernel had no memory left.*{RUN}", -9),
    ],
    "the disk is full, or a quota is used up": [
        Drill("full_disk", StoreUnavailable, True, 1, f"No space left on device. Make room in .*/scratch, then.*{RUN}"),
    ],
    "no permission, or a read-only file system": [
        Drill("no_permission", SystemRefused, False, 2, "/scratch/locked/file: Permission denied. Change the rights"),
        Drill("read_only", SystemRefused, False, 2, "/scratch/file: Read-only file system. Change the rights"),
    ],
    "a limit of the process: open files, file size": [
        Drill("too_many_files", SystemRefused, False, 2, "/dev/null: Too many open files. .*ulimit -n"),
        Drill("too_large_a_file", SystemRefused, False, 2, "File too large. .*ulimit -f"),
    ],
    "a limit of the machine: processes, threads, open files": [
        Drill("no_room_for_threads", TryAgain, True, 75, "can't start new thread. .*no room for more processes"),
    ],
    "a file is held by another process (a lock of SQLite, a mount)": [
        Drill("held_file", TryAgain, True, 75, f"Device or resource busy. Another process holds it; .*{RUN}"),
    ],
    "a file vanished, or a path is no file or folder": [
        Drill("vanished_file", MissingInput, False, 2, "/scratch/gone: No such file or directory. Put it back"),
        Drill("unspeakable", MissingInput, False, 2, r"/tmp/\\udcff: No such file"),
    ],
    "the disk or a mount fails": [
        Drill("failing_disk", StoreUnavailable, True, 1, "Input/output error. Check the disk and the mount"),
    ],
    "a server does not answer: connection refused, reset, timed out, unknown host": [
        Drill("refused_connection", ServerUnavailable, True, 1, f"Connection refused. When the server answers.*{RUN}"),
        Drill("unknown_host", ServerUnavailable, True, 1, "When the server answers again"),
    ],
    "a process is ended by SIGKILL": [
        Drill("killed", ChildFailed, True, 1, f"warm_start was ended by SIGKILL.*Somebody killed.*{RUN}.*job.log", -9),
        Drill("killed_in_a_word", ChildFailed, True, 1, "was ended by SIGKILL", -9),
        Drill("shell_code", ChildFailed, True, 1, "was ended by SIGKILL.*Somebody killed it", 137),
    ],
    "native code crashes: SIGSEGV, SIGBUS, SIGABRT": [
        Drill("crashed", ChildFailed, True, 1, f"was ended by SIGSEGV.*{RUN}", -11),
        Drill("aborted", ChildFailed, True, 1, f"was ended by SIGABRT.*{RUN}", -6),
        Drill("bus_error", ChildFailed, True, 1, f"was ended by SIGBUS.*{RUN}", -7),
    ],
    "native code cannot run here: SIGILL, SIGFPE, SIGSYS, SIGTRAP": [
        Drill("wrong_processor", UnexpectedError, False, 1, "was ended by SIGILL.*built for it", -4),
    ],
    "a process is asked to stop before it can save: SIGTERM, SIGINT, SIGHUP": [
        Drill("stopped_unheard", Preempted, True, 75, f"was ended by SIGTERM.*What was saved is kept.*{RUN}", -15),
        Drill("hung_up", Preempted, True, 75, f"was ended by SIGHUP.*{RUN}", -1),
    ],
    "a process cannot write its error down (exit code 74)": [
        Drill("unwritten", StoreUnavailable, True, 1, "exit code 74.*could not even write.*/scratch writable", 74),
    ],
    "a process ends with an unknown exit code or signal": [
        Drill("unknown_code", ChildFailed, True, 1, f"ended with exit code 7.*from a library.*{RUN}", 7),
        Drill("unknown_signal", ChildFailed, True, 1, "was ended by SIGUSR1.*from a library", -10),
    ],
    "the code of a job or a plug-in calls sys.exit": [
        Drill("gone_by_itself", UnexpectedError, False, 1, "SystemExit: 0. Code that it runs called sys.exit"),
    ],
    "any other exception, in a job or a plug-in": [
        Drill("type_error", UnexpectedError, False, 1, "warm_start: TypeError: unsupp.*not retried; log: .*job.log"),
        Drill("group", UnexpectedError, False, 1, "KeyError: 'name'.*not retried"),
    ],
}  # fmt: skip
"""Drills by the row of the table that they are of."""
DRILLS = [drill for drills in OF_CAUSE.values() for drill in drills]

NOT_IN_A_JOB = {
    "Ctrl-C, or SIGTERM to the command",  # test_interrupts.py
}


@dataclass(frozen=True)
class Outcome:
    """What `run_job` raised, and how the job's process ended."""

    error: BaseException
    code: int | None


class Recorder:
    """Notes the processes that jobs run in, by the folder of the drill."""

    def __init__(self) -> None:
        self.start, self.children = job_process._jobs.start, dict[str, job_process.Child]()

    def __call__(self, job: Job, spec: Path, log: BinaryIO) -> job_process.Child:
        child = self.start(job, spec, log)
        self.children[spec.parents[1].name] = child
        return child

    def drill(self, folder: Path) -> Outcome:
        """The drill that `folder` is named after, in a job of its own, as a stage would run it."""
        folder.mkdir(exist_ok=True)
        config = load_config(write_profile(folder))
        job = Job(name="warm_start", config=config, scratch=folder / "scratch", out=folder / "out")
        try:
            run_job(job)
        except BaseException as error:
            return Outcome(error, self.children[folder.name].returncode)
        return Outcome(AssertionError("nothing went wrong"), self.children[folder.name].returncode)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    root = tmp_path_factory.mktemp("drills")
    names = [drill.name for drill in DRILLS if drill.name != "kernel_killed"]
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(SITE), str(PROJECT)]))
        patch.setenv("CURES_DRILLS", "1")
        patch.setattr(job_process._jobs, "start", recorder)
        with ThreadPoolExecutor(2) as pool:
            found = dict(zip(names, pool.map(lambda name: recorder.drill(root / name), names), strict=True))
        machine = root / "kernel_killed"
        (machine / "sys/fs/cgroup").mkdir(parents=True)
        (machine / "sys/fs/cgroup/memory.events").write_text("low 0\noom_kill 3\n")
        patch.setattr(job_process, "oom_kills", lambda: oom_kills(machine))
        return {**found, "kernel_killed": recorder.drill(machine)}


@pytest.mark.parametrize("drill", DRILLS, ids=lambda drill: drill.name)
def test_a_cause_ends_as_the_table_says(drill: Drill, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[drill.name]
    error = outcome.error
    assert type(error) is drill.error, error
    assert re.search(drill.says, str(error), re.DOTALL), str(error)
    assert "Traceback" not in str(error)
    assert outcome.code == (drill.code if drill.child is None else drill.child)
    assert error.exit_code == drill.code
    assert retryable(None, None, Failed(data=error)) is drill.retried


def test_every_row_has_a_drill() -> None:
    assert set(OF_CAUSE) == {row.cause for row in TABLE} - NOT_IN_A_JOB
    assert {drill.error for drill in DRILLS} >= CLASSES - {CuresError}


@pytest.mark.parametrize("package", ["cures_core", "tasks", "flows"])
def test_nothing_is_raised_that_has_no_row(package: str) -> None:
    """Bare `CuresError` says neither whether to retry nor what became of it: only its classes are made."""
    made = [
        f"{path.relative_to(PROJECT)}:{node.lineno}"
        for path in sorted((PROJECT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_bytes()))
        if (isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == CuresError.__name__)
        or (isinstance(node, ast.Raise) and node.exc is not None and ast.unparse(node.exc) == CuresError.__name__)
    ]
    assert made == []


@pytest.mark.parametrize("cause", OF_CAUSE)
def test_a_row_says_what_its_drills_found(cause: str, outcomes: dict[str, Outcome]) -> None:
    """Class, retry, exit code, and the remedy word for word, but for what it says of the place."""
    (row,) = (row for row in TABLE if row.cause == cause)
    for drill in OF_CAUSE[cause]:
        error = outcomes[drill.name].error
        assert (row.error, row.retried, row.error.exit_code) == (type(error), drill.retried, drill.code)
        assert all(part in str(error) for part in re.split(r"{\w+}", row.remedy))


@pytest.mark.parametrize("name", ["python_memory", "full_disk", "type_error"])
def test_a_rank_tells_what_a_job_does(name: str, tmp_path: Path) -> None:
    """One rank of one, told as the launcher reads it."""
    drill = next(drill for drill in DRILLS if drill.name == name)
    folder, reports = tmp_path / name, tmp_path / "reports"
    (folder / "scratch").mkdir(parents=True)
    reports.mkdir()
    job = Job(name="warm_start", config=load_config(write_profile(folder)), scratch=folder / "scratch", out=folder)
    (folder / "job.json").write_text(job.model_dump_json())
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SITE), str(PROJECT)]), "CURES_DRILLS": "1"}
    env |= {"RANK": "0", "WORLD_SIZE": "1", "CURES_WAIT_TIMEOUT_S": "60"}
    command = [sys.executable, "-m", "cures_core.jobs.rank", str(reports), "60", str(folder / "job.json")]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as rank:
        assert rank.wait(120) == drill.code
    failure = read_report(reports / "0.json")
    assert type(failure) is drill.error
    assert re.search(drill.says, str(failure), re.DOTALL), str(failure)


CLASSES = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CuresError)}


@pytest.mark.parametrize(
    ("numbers", "error"),
    [
        ((errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE), StoreUnavailable),
        ((errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.EFBIG), SystemRefused),
        ((errno.ENOMEM,), OutOfMemory),
        ((errno.EAGAIN, errno.ENFILE, errno.EBUSY), TryAgain),
        ((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP), MissingInput),
        ((errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT, errno.EPIPE), ServerUnavailable),
        ((errno.EDOM,), UnexpectedError),
    ],
)
def test_each_refusal_of_the_system_has_its_class_and_names_the_file(
    numbers: tuple[int, ...], error: type[CuresError]
) -> None:
    for number in numbers:
        failure = failure_of(OSError(number, os.strerror(number), "/store/k"), Scene("epoch 2", go_on="resume"))
        assert type(failure) is error, errno.errorcode[number]
        assert str(failure).startswith(f"epoch 2: /store/k: {os.strerror(number)}. ")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nA lecture about fragments"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("unable to mmap 128 bytes from file </model>: Cannot allocate memory (12)"),
        ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"),
        pa.ArrowMemoryError("malloc of size 64 failed"),
        ExceptionGroup("tasks", [MemoryError()]),
        failures.Ended(1, "in run_reporting | MemoryError"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_memory_that_runs_out_is_one_error_whoever_says_so(error: Exception) -> None:
    failure = failure_of(error, Scene(less_memory="lower the batch"))
    assert type(failure) is OutOfMemory
    assert "lower the batch" in str(failure)
    assert "lecture" not in str(failure)
    assert not failure.retryable


def test_what_the_system_refused_a_library_in_rust_is_what_it_refused(tmp_path: Path) -> None:
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(SafetensorError) as refused:
            save_file({"weights": torch.zeros(1 << 16)}, tmp_path / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    failure = failure_of(refused.value, Scene("epoch 1", go_on="resume"))
    assert type(failure) is SystemRefused
    assert str(failure).startswith("epoch 1: File too large. Raise the limit")
    with pytest.raises(Exception, match="os error 2") as gone:
        Tokenizer.from_file(str(tmp_path / "gone"))
    assert type(failure_of(gone.value)) is MissingInput
    assert type(failure_of(ValueError("is '(os error 28)' a number?"))) is UnexpectedError


def test_a_text_that_speaks_of_memory_is_not_a_lack_of_it() -> None:
    assert type(failure_of(failures.Ended(-9, "MemoryError"))) is ChildFailed
    error = pa.ArrowInvalid("CSV parse error: Expected 2 columns, got 3: the robot ran out of memory, and")
    assert type(failure_of(error)) is UnexpectedError


def test_the_machine_is_not_mistaken_for_the_content_nor_the_other_way_round(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    assert machine_failure(OSError("Couldn't deserialize thrift"), path) is None
    assert machine_failure(ValueError("no such column"), path) is None
    assert machine_failure(FileNotFoundError(errno.ENOENT, "gone"), path) is None
    assert type(machine_failure(MemoryError(), path)) is OutOfMemory
    assert type(machine_failure(OSError(errno.EIO, "bad block"), path)) is StoreUnavailable
    ours = DataRejected("row 3")
    assert machine_failure(ours, path) is ours


class Own(EngineFailed):
    """An error class of a plug-in."""


def test_a_report_is_read_as_it_was_written_and_what_is_none_is_none(tmp_path: Path) -> None:
    path = tmp_path / "error.json"
    assert read_report(path) is None
    assert write_report(path, Own("gone: \udcff")) == 1
    failure = read_report(path)
    assert type(failure) is EngineFailed
    assert failure.retryable
    assert str(failure) == "gone: \\udcff"
    for damaged in (b"", b"{", b"[]", b'{"class": "dataclass", "message": ""}', b'{"class": "Path", "message": ""}'):
        path.write_bytes(damaged)
        assert read_report(path) is None
    assert write_report(tmp_path, Own("gone")) == failures.UNREPORTED


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.events": "oom 9\noom_kill 2\n"}, 2),
        ({"proc/self/cgroup": "4:memory:/a\n0::/\n", "sys/fs/cgroup/memory/a/memory.oom_control": "oom_kill 5"}, 5),
        ({"proc/self/cgroup": "0::/elsewhere\n", "sys/fs/cgroup/memory.events": "oom_kill 3\n"}, 3),
        ({"proc/vmstat": "nr_free_pages 9\noom_kill 7\n"}, 7),
        ({"proc/self/cgroup": "damaged", "proc/vmstat": "nothing counts\n"}, 0),
        ({}, 0),
    ],
)
def test_the_kernel_s_kills_are_counted_where_it_counts_them(tmp_path: Path, files: dict[str, str], count: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert oom_kills(tmp_path) == count


def test_this_machine_s_own_counter_is_read() -> None:
    assert oom_kills() >= 0


ON_A_FULL_DISK = """
import sys
from pathlib import Path
from cures_core.errors import StoreUnavailable
from flows.local.temporary_server import temporary_server
folder = Path(sys.argv[1]) / "full"
try:
    with temporary_server(folder / "prefect"):
        raise SystemExit("the server came up")
except StoreUnavailable as error:
    print(error)
"""


def test_a_full_disk_is_named_where_the_temporary_server_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    script = f'mount -t tmpfs -o size=256k none "$0/full" && exec "{sys.executable}" -c "$1" "$0"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(tmp_path), ON_A_FULL_DISK]
    env = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=300, check=False)
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip("no right to mount a small file system here")
    assert done.returncode == 0, done.stderr
    assert "the temporary Prefect server did not come up: " in done.stdout
    assert "No space left on device. Make room in" in done.stdout
    assert "full/prefect" in done.stdout


def test_prefect_away_at_the_start_is_one_sentence(tmp_path: Path) -> None:
    env = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    outcome = cures("run", "--config", write_profile(tmp_path), cwd=tmp_path, env=env)
    assert outcome.code == 1
    assert outcome.err.startswith("cures: no Prefect server answers at http://127.0.0.1:9/api, which PREFECT_API_URL")
    assert len(outcome.err.splitlines()) == 1


def test_a_place_without_permission_is_named(tmp_path: Path) -> None:
    """Nobody, root included, makes folders in /sys."""
    outcome = cures("run", "--config", write_profile(tmp_path), "--store", "/sys/cures", cwd=tmp_path)
    assert outcome.code == 2
    assert re.match(r"cures: /sys/cures(/prefect)?: (Permission denied|Operation not permitted|Read-only)", outcome.err)
    assert "Change the rights" in outcome.err
    assert "Traceback" not in outcome.err


def test_the_documented_table_is_this_one() -> None:
    lines = ["| cause | error | retried | exit code | Prefect shows |", "|---|---|---|---|---|"]
    for row in TABLE:
        cells = (row.cause, row.error.__name__, "yes" if row.retried else "no", str(row.error.exit_code), row.state)
        lines.append(f"| {' | '.join(cells)} |")
    table = "\n".join(lines)
    assert table in (PROJECT / "docs/operations.md").read_text(), f"docs/operations.md is to have this table:\n{table}"
