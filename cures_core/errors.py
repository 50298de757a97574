"""The error tree. The class decides the exit code and whether a retry can help; nothing else does."""

from __future__ import annotations

from cures_core.secrets import masked


class CuresError(Exception):
    """Base of every error this project raises on purpose.

    `exit_code` is what the `cures` command and every child process end with; `retryable` tells the parent task whether
    running the same thing again can help. The message names the place, the value and the remedy, and shows no secret,
    though it may quote what a library or a server said: it goes to Prefect's database, to files and to the terminal.
    """

    exit_code: int = 1
    retryable: bool = False

    def __init__(self, *args: object) -> None:
        super().__init__(*(masked(arg) if isinstance(arg, str) else arg for arg in args))


class ConfigError(CuresError, ValueError):
    """The configuration or the command line is wrong: fix it, a retry cannot help."""

    exit_code = 2


class DataRejected(CuresError, ValueError):
    """The prompt set or a suite did not pass validation."""

    exit_code = 3


class MissingInput(CuresError, FileNotFoundError):
    """A file, folder or model the user named is not there."""

    exit_code = 2

    def __str__(self) -> str:  # FileNotFoundError would print errno fields
        return str(self.args[0]) if self.args else ""


class MissingExtra(CuresError, ImportError):
    """An optional dependency is not installed; the message holds the line that installs it."""

    exit_code = 2


class CorruptArtifact(CuresError, ValueError):
    """Stored bytes do not match their recorded digest, or a recorded file is gone."""


class CurriculumMisuse(CuresError, ValueError):
    """A curriculum was told a request it did not ask, or told twice. State is untouched."""


class TrainingDiverged(CuresError, ArithmeticError):
    """Too many non-finite losses or gradients in a row."""


class OutOfMemory(CuresError, MemoryError):
    """Memory ran out, on whatever device and at whatever work. The same again needs as much, so it is not retried."""


class KilledForMemory(OutOfMemory):
    """The kernel killed a process because memory ran out around it.

    Retried: it kills the largest process, while the memory may have been filled by others, who may be gone.
    """

    retryable = True


class EngineFailed(CuresError, RuntimeError):
    """A rollout engine died or did not answer within its deadline."""

    retryable = True


class ChildFailed(CuresError, RuntimeError):
    """A stage's child process ended without a result, for example killed by a signal."""

    retryable = True


class RankLost(CuresError, RuntimeError):
    """Another process of a distributed job died or did not answer within the deadline."""

    retryable = True


class StoreUnavailable(CuresError, OSError):
    """The store, or a repository beside it, did not answer, or refused for what may pass (outage, disk full)."""

    retryable = True

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ServerUnavailable(CuresError, ConnectionError):
    """A server over the network (Prefect, a model hub) did not answer."""

    retryable = True


class ServerRefused(CuresError):
    """A server over the network (Prefect, S3) answered, and does not do what it was asked to."""


class RunIncomplete(CuresError):
    """A flow run on a server, which somebody waited for, did not complete, or not in time."""


class SystemRefused(CuresError):
    """The operating system refuses: rights, a read-only file system, a limit of the process.

    Something has to be changed first, as with a wrong configuration.
    """

    exit_code = 2


class TryAgain(CuresError):
    """Nothing is wrong, but not now: another process holds or changes what is needed, or this one was asked to stop."""

    exit_code = 75
    retryable = True


class LeaseHeld(TryAgain):
    """Another process works on this run."""

    retryable = False


class LeaseLost(TryAgain):
    """This process was paused past its lease and another took over: it must not commit anything."""

    retryable = False


class Preempted(TryAgain):
    """The process was asked to stop (SIGTERM, Ctrl-C); what it had saved is kept."""


class InjectedFault(CuresError, RuntimeError):
    """Raised by `cures_core.faults` where the configuration asks for it (drills and tests)."""


class UnexpectedError(CuresError, RuntimeError):
    """An exception that nobody foresaw: a fault of this program or of a plug-in, so the same again would fail again."""
