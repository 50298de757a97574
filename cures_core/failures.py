"""The one table of failures: cause, error class, retried or not, exit code, what Prefect shows.

`failure_of` is the only place where a foreign exception, or a process that ended without a word, becomes an error of
this project. Jobs, ranks, stages, flows and the command all go through it, so one cause ends in one way everywhere.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
from cures_core.extras import extra_with, to_type

UNREPORTED = 74
"""Exit code of a job or rank that could not even write its error down (EX_IOERR of sysexits.h)."""


class Ended(Exception):
    """A process of ours that ended badly and left no report."""

    def __init__(self, code: int, output: str = "", *, for_memory: bool = False) -> None:
        """`code` as `subprocess` gives it, `output` the end of its log, `for_memory`: the kernel killed for memory."""
        super().__init__(code, output)
        self.code, self.for_memory = code, for_memory
        number = -code if code < 0 else code - 128  # launchers and shells turn signals into 128 + number
        self.signal = signal.Signals(number) if number in signal.valid_signals() else None
        self._message = output

    def __str__(self) -> str:
        how = f"ended with exit code {self.code}" if self.signal is None else f"was ended by {self.signal.name}"
        return how + (f" ({self._message})" if self._message else "")


@dataclass(frozen=True)
class Scene:
    """What a message can say of the place where something failed."""

    what: str = ""
    """What was being done; the message begins with it."""
    place: str = "that place"
    """The folder that was written to, where the system does not name the file."""
    go_on: str = "run the same command again"
    """How to go on when the cause is gone."""
    less_memory: str = "lower training.micro_batch_tokens (updates) or rollout.batch_rows (rollouts, evaluation)"
    """What would need less memory."""
    log: Path | None = None
    """Where the process's own log is."""


@dataclass(frozen=True)
class Row:
    """A line of the table. What is retried, and the exit code, are the class's own."""

    cause: str
    error: type[CuresError]
    applies: Callable[[BaseException], bool]
    remedy: str = ""
    """May hold the names of `Scene`'s fields in braces, and `install`: what to type for a module that is missing."""
    crashed: bool = False
    """The flow's own process is stopped: Prefect shows Crashed, and nothing is left that could retry."""

    @property
    def retried(self) -> bool:
        return self.error.retryable and not self.crashed

    @property
    def state(self) -> str:
        """What Prefect shows of the task (of the flow, where it was stopped itself)."""
        if self.crashed:
            return "Crashed"
        return "AwaitingRetry, in the end Failed" if self.retried else "Failed"


def _is(*kinds: type[BaseException]) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, kinds)


_OF_RUST = re.compile(r"\(os error (\d+)\)")
_OF_SQLITE = {5: errno.EBUSY, 6: errno.EBUSY, 7: errno.ENOMEM, 10: errno.EIO, 13: errno.ENOSPC}
"""By SQLite's primary code: BUSY, LOCKED, NOMEM, IOERR, FULL. What else it refuses is the file's content or place."""


def system_error(error: BaseException) -> int | None:
    """The system's number of what it refused. Libraries in Rust (safetensors, tokenizers) tell it in words, SQLite in
    codes of its own."""
    if isinstance(error, OSError):
        return error.errno
    if code := getattr(error, "sqlite_errorcode", None):
        return _OF_SQLITE.get(code & 0xFF)
    is_theirs = type(error) is Exception or type(error).__name__ == "SafetensorError"
    told = _OF_RUST.search(str(error)) if is_theirs else None
    return None if told is None else int(told[1])


def _system(*numbers: int) -> Callable[[BaseException], bool]:
    return lambda error: system_error(error) in numbers


def _ended_by(*signals: signal.Signals) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, Ended) and error.signal in signals


_MEMORY_WORDS = (
    "can't allocate memory",  # torch on a CPU
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "cudaErrorMemoryAllocation",
    "std::bad_alloc",
    "No available memory for the cache blocks",  # vLLM at its start, and the next
    "less than desired GPU memory utilization",
)
_MEMORY_WORDS_OF_RUNTIMES = ("out of memory", "Cannot allocate memory")
"""Of CUDA, NCCL and a file that is mapped; in other errors than RuntimeError they may be a prompt's."""
_NO_THREAD = ("can't start new thread", "Failed to launch worker thread")
_NO_ANSWER = (
    "httpx.TransportError",
    "httpx2.TransportError",  # of huggingface_hub
    "requests.exceptions.ConnectionError",
    "requests.exceptions.Timeout",
)  # by name: what is not imported cannot have been raised


def is_out_of_memory(error: BaseException) -> bool:
    """Python's error, Arrow's, the system's, and whatever torch, CUDA's libraries and vLLM say in their own words."""
    if isinstance(error, MemoryError) or _system(errno.ENOMEM)(error):
        return True
    words = _MEMORY_WORDS + (_MEMORY_WORDS_OF_RUNTIMES if isinstance(error, RuntimeError) else ())
    if isinstance(error, Ended) and error.signal is None:  # it had no memory to report it with either
        words += (MemoryError.__name__,)
    return any(phrase in str(error) for phrase in words)


def _no_answer(error: BaseException) -> bool:
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    return isinstance(error, ConnectionError | TimeoutError | socket.gaierror) or not names.isdisjoint(_NO_ANSWER)


def _collective_broke_off(error: BaseException) -> bool:
    named = any(kind.__name__ == "DistError" for kind in type(error).__mro__)
    return named or (isinstance(error, RuntimeError) and "gloo/transport" in str(error))


def _no_room_for_processes(error: BaseException) -> bool:
    refused = _system(errno.EAGAIN, errno.ENFILE)(error)
    return refused or any(phrase in str(error) for phrase in _NO_THREAD)


_FROM_CHECKPOINT = "What was saved is kept: {go_on}"

TABLE: tuple[Row, ...] = (
    # Raised on purpose, where the message can say most.
    Row("configuration or command line is wrong", ConfigError, _is(ConfigError)),
    Row("prompts or a suite are rejected", DataRejected, _is(DataRejected)),
    Row("a file, folder or model that was named is missing", MissingInput, _is(MissingInput)),
    Row("an optional package is not installed", MissingExtra, _is(MissingExtra)),
    Row("stored bytes are damaged or gone", CorruptArtifact, _is(CorruptArtifact)),
    Row("a curriculum is told what it did not ask for", CurriculumMisuse, _is(CurriculumMisuse)),
    Row("loss or gradient stay non-finite", TrainingDiverged, _is(TrainingDiverged)),
    Row("a rollout engine dies or does not answer", EngineFailed, _is(EngineFailed)),
    Row("the store does not answer, or git, DVC or pip fail for the moment", StoreUnavailable, _is(StoreUnavailable)),
    Row("a server (Prefect, S3) refuses what it is asked to do", ServerRefused, _is(ServerRefused)),
    Row("a flow run that was waited for has not completed", RunIncomplete, _is(RunIncomplete)),
    Row("another rank of a distributed epoch is gone or late", RankLost, _is(RankLost)),
    Row("the run is held by another process", LeaseHeld, _is(LeaseHeld)),
    Row("the run was taken over by another process", LeaseLost, _is(LeaseLost)),
    Row("a job is asked to stop (SIGTERM), and its step is saved", Preempted, _is(Preempted)),
    Row("not now: another process changes a file, key or pointer, or took the stage over", TryAgain, _is(TryAgain)),
    Row("a drill (`faults`)", InjectedFault, _is(InjectedFault)),
    # Told by the command itself, since the flow is stopped from outside.
    Row("Ctrl-C, or SIGTERM to the command", Preempted, _is(KeyboardInterrupt), crashed=True),
    Row(
        "a module of an optional part is imported, and is not there",
        MissingExtra,
        lambda error: isinstance(error, ModuleNotFoundError) and extra_with(error.name) is not None,
        "It comes with: {install}",
    ),
    # Memory, whoever finds out.
    Row(
        "the kernel kills a process for lack of memory",
        KilledForMemory,
        lambda error: isinstance(error, Ended) and error.signal == signal.SIGKILL and error.for_memory,
        "The kernel had no memory left. Leave it more, or {less_memory}. " + _FROM_CHECKPOINT,
    ),
    Row(
        "memory runs out: Python, Arrow, torch, CUDA; update, rollout, evaluation, loading",
        OutOfMemory,
        is_out_of_memory,
        "Not enough memory, and the same again needs as much: {less_memory}",
    ),
    # What the operating system refuses.
    Row(
        "the disk is full, or a quota is used up",
        StoreUnavailable,
        _system(errno.ENOSPC, errno.EDQUOT),
        "Make room in {place}, then {go_on}; nothing committed is lost",
    ),
    Row(
        "no permission, or a read-only file system",
        SystemRefused,
        _system(errno.EACCES, errno.EPERM, errno.EROFS, errno.EOPNOTSUPP),
        "Change the rights of {place}, or store.url and store.scratch, then {go_on}",
    ),
    Row(
        "a limit of the process: open files, file size",
        SystemRefused,
        _system(errno.EMFILE, errno.EFBIG),
        "Raise the limit (`ulimit -n 65536` for open files, `ulimit -f unlimited` for sizes), then {go_on}",
    ),
    Row(
        "a limit of the machine: processes, threads, open files",
        TryAgain,
        _no_room_for_processes,
        "The machine has no room for more processes now; when others have ended, {go_on}",
    ),
    Row(
        "a file is held by another process (a lock of SQLite, a mount)",
        TryAgain,
        _system(errno.EBUSY),
        "Another process holds it; when that one has ended, {go_on}",
    ),
    Row(
        "a file vanished, or a path is no file or folder",
        MissingInput,
        _system(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
        "Put it back or correct the path that names it, then {go_on}",
    ),
    Row(
        "the disk or a mount fails",
        StoreUnavailable,
        _system(errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO),
        "Check the disk and the mount of {place}, then {go_on}",
    ),
    Row(
        "a server does not answer: connection refused, reset, timed out, unknown host",
        ServerUnavailable,
        _no_answer,
        "When the server answers again, {go_on}",
    ),
    Row(
        "a collective of torch breaks off (gloo, NCCL)",
        RankLost,
        _collective_broke_off,
        "Another rank is gone or late. " + _FROM_CHECKPOINT,
    ),
    # Processes that left no report.
    Row(
        "a process is ended by SIGKILL",
        ChildFailed,
        _ended_by(signal.SIGKILL),
        "Somebody killed it, or the kernel when memory ran out. " + _FROM_CHECKPOINT,
    ),
    Row(
        "native code crashes: SIGSEGV, SIGBUS, SIGABRT",
        ChildFailed,
        _ended_by(signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT),
        "Drivers and worn memory crash so now and then, which a retry outlives. " + _FROM_CHECKPOINT,
    ),
    Row(
        "native code cannot run here: SIGILL, SIGFPE, SIGSYS, SIGTRAP",
        UnexpectedError,
        _ended_by(signal.SIGILL, signal.SIGFPE, signal.SIGSYS, signal.SIGTRAP),
        "A library does what this processor or system does not allow: install one that is built for it",
    ),
    Row(
        "a process is asked to stop before it can save: SIGTERM, SIGINT, SIGHUP",
        Preempted,
        _ended_by(signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
        _FROM_CHECKPOINT,
    ),
    Row(
        f"a process cannot write its error down (exit code {UNREPORTED})",
        StoreUnavailable,
        lambda error: isinstance(error, Ended) and error.code == UNREPORTED,
        "It could not even write its error down: make {place} writable and have room there, then {go_on}",
    ),
    Row(
        "a process ends with an unknown exit code or signal",
        ChildFailed,
        _is(Ended),
        "What fails in Python is reported, so this came from a library. " + _FROM_CHECKPOINT,
    ),
    # Last, for all that is left.
    Row(
        "the code of a job or a plug-in calls sys.exit",
        UnexpectedError,
        _is(SystemExit),
        "Code that it runs called sys.exit, whatever the code, before there was a result: it has to raise an error",
    ),
    Row(
        "any other exception, in a job or a plug-in",
        UnexpectedError,
        _is(Exception),
        "Nobody foresaw this: it is a fault of the program or of a plug-in, and is not retried",
    ),
)

_OF_THE_MACHINE = (OutOfMemory, StoreUnavailable, SystemRefused, TryAgain)


def failure_of(error: BaseException, scene: Scene | None = None) -> CuresError:
    """The error of this project that `error` amounts to; its own errors are returned as they are."""
    if isinstance(error, CuresError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return failure_of(error.exceptions[0], scene)
    return _described(error, _row_of(error), scene or Scene())


def machine_failure(error: BaseException, at: Path | Scene) -> CuresError | None:
    """What to raise where a file could not be used, or a process not be started, and the machine is to blame: memory,
    handles, rights, a full or failing disk. None where it was the content: `raise machine_failure(error, path) or
    CorruptArtifact(...)`."""
    if isinstance(error, CuresError):
        return error
    if isinstance(at, Path):
        at = Scene(str(at), str(at), less_memory="leave the process more, or use a smaller file")
    row = _row_of(error)
    return _described(error, row, at) if issubclass(row.error, _OF_THE_MACHINE) else None


@contextmanager
def explaining(scene: Scene | None = None) -> Iterator[None]:
    """Let only errors of this project out, and signals. Also a decorator."""
    try:
        yield
    except CuresError:
        raise
    except (Exception, SystemExit) as error:
        raise failure_of(error, scene) from error


def _row_of(error: BaseException) -> Row:
    return next(row for row in TABLE if row.applies(error))


def _described(error: BaseException, row: Row, scene: Scene) -> CuresError:
    extra = extra_with(getattr(error, "name", None))
    remedy = row.remedy.format(
        place=scene.place, go_on=scene.go_on, less_memory=scene.less_memory, install=to_type(extra) if extra else ""
    )
    log = "" if scene.log is None else f"; log: {scene.log}"
    link = " " if isinstance(error, Ended) else ": "
    return row.error(f"{scene.what}{link if scene.what else ''}{_message(error, row, scene.what)}. {remedy}{log}")


def _message(error: BaseException, row: Row, what: str) -> str:
    if isinstance(error, OSError) and error.strerror:
        named = error.filename and str(error.filename) != what
        return f"{error.filename}: {error.strerror}" if named else error.strerror
    if (number := system_error(error)) is not None:
        return os.strerror(number)
    text = str(error).strip()
    if issubclass(row.error, OutOfMemory):
        text = text.partition("\n")[0]  # CUDA's goes on with a lecture about fragmentation
    name = type(error).__name__
    if issubclass(row.error, UnexpectedError) and not isinstance(error, Ended):
        return f"{name}: {text}" if text else name
    return text.rstrip(".") or name
