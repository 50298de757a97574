"""The processes that run math-verify on text nobody trusts: confined, killable, and ended by the end of their input.

`python -m cures_core.rewards.child WORK TIMEOUT_S MEMORY_MB` is the template. It imports and warms up what the work
needs, says {"ready": true} on the socket that is its standard input (or {"refused": why}), and then forks a worker for
each socket that it is sent there, which it answers with the worker's process id and file descriptor. So a killed worker
is replaced in milliseconds. The template itself never sees a job.

WORK is `math`, `regex`, `gym` (reasoning-gym's scorers, which evaluate answers as Python: confined as programs are), a
user's function, `package.module:name`, or an environment, `verifiers::package`: the last two can be killed and have a
limit of memory, but are not confined, as their code is trusted.

A worker answers jobs (`wire` frames): {"gold", "answer"} by {"outcome", "reason"}, {"pattern", "text"} by {"found"},
{"arguments", "prompt"} by {"returned"}, {"item"} by {"score"} or {"reward"}. The only time limit in here is one of
processor time that ends an orphan: a big-integer power holds the interpreter lock, so only the parent can stop it in
time.
"""

from __future__ import annotations

import gc
import inspect
import logging
import math
import os
import re
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from cures_core.errors import ConfigError, CuresError
from cures_core.rewards.arithmetic import same_rationals
from cures_core.rewards.wire import PID_BYTES, Frames, pack
from cures_core.terms import Prompt

T = TypeVar("T")
Reply = dict[str, object]
Answering = Callable[[Mapping[str, Any]], Reply]

_ORPHAN_POLL_S = 5.0
"""How often an idle process looks whether its parent is still there."""
_WARM_UP = (
    (r"\sqrt{2}", "1"),
    (r"\sqrt{2}", r"\frac{1414213562373}{1000000000000}"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"\sin^2 x", "x"),
    ("(1,2)", "[1,3]"),
    ("1,2", "2,3"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}"),
)
"""Pairs compared before the first deadline runs: they build the parser's tables and load what sympy loads late."""
_WORKER_CPU_S = 1 << 20
"""Processor seconds of a worker's life; those of a job are limited as it comes."""
_FORBIDDEN_EVENTS = ("socket.", "subprocess.", "os.", "shutil.", "ctypes.", "ftplib.", "urllib.", "webbrowser.", "pty.")


def main(work: str, timeout_s: float, memory_mb: int) -> None:
    """Serve until stdin ends. `work`: "math" imports and warms math-verify first, a function is imported."""
    logging.disable(logging.CRITICAL)
    parent, control = os.getppid(), socket.socket(fileno=sys.stdin.fileno())
    try:
        answer = _prepared(work, memory_mb)
    except CuresError as error:
        control.sendall(pack({"refused": str(error)[:2000]}))
        return
    gc.freeze()  # the workers share these pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the workers
    control.sendall(pack({"ready": True}))
    while _has_input(control.fileno(), parent):
        data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            return
        worker = os.fork()
        if worker == 0:
            control.close()
            try:
                _serve(descriptors[0], work, answer, timeout_s, memory_mb)
            finally:
                os._exit(0)
        os.close(descriptors[0])
        handle = os.pidfd_open(worker)
        socket.send_fds(control, [worker.to_bytes(PID_BYTES, "big")], [handle])
        os.close(handle)


def _prepared(work: str, memory_mb: int) -> Answering:
    """What answers the jobs, with all imported that it needs. Raises `ConfigError` or `MissingExtra`."""
    if work == "gym":
        from cures_core.rewards import gym_items

        gym_items.load()
        return gym_items.answer
    if "::" in work:
        return _environment(work.partition("::")[2], memory_mb)
    if ":" in work:
        function = _own(work, memory_mb)
        return partial(_ask, function, takes_prompt(function))
    if work == "math":
        for gold, given in _WARM_UP:
            judge(gold, given)
    return _search_or_judge


def _search_or_judge(job: Mapping[str, Any]) -> Reply:
    return _search(job["pattern"], job["text"]) if "pattern" in job else judge(job["gold"], job["answer"])


def _ask(function: Callable[..., object], of_prompt: bool, job: Mapping[str, Any]) -> Reply:
    """What a user's function returns for (completion, gold), and for the prompt where it takes one."""
    if not of_prompt:
        return _returned(function(*job["arguments"]))
    of_job = job["prompt"]
    turns = tuple((role, text) for role, text in of_job["turns"])
    return _returned(function(*job["arguments"], Prompt(**{**of_job, "turns": turns})))


def takes_prompt(function: Callable[..., object]) -> bool:
    """Whether a third argument is the prompt: a parameter of that name, or one without a default. Settings of a
    function's own, with defaults, stay what they are."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some of those written in C say nothing
        return False
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(placed) > 2 and (placed[2].name == "prompt" or placed[2].default is inspect.Parameter.empty)


def _own(path: str, memory_mb: int) -> Callable[..., object]:
    """A user's function. Raises `ConfigError` where it may not be run, is none, or its imports fill the memory."""
    from cures_core.plugins import load_plugin

    function = load_plugin(path, "reward.function")
    if not callable(function):
        raise ConfigError(f"reward.function {path!r} is a {type(function).__name__}, not a function")
    _require_room("reward.function", path, memory_mb)
    return function


def _environment(name: str, memory_mb: int) -> Answering:
    """Scores tasks of an installed environment. Raises `ConfigError` where it may not be run, is none, or fills the
    memory, and `MissingExtra`."""
    from cures_core.rewards import environment_tasks

    kind = environment_tasks.load(name, "reward.environment")
    _require_room("reward.environment", name, memory_mb)
    return partial(environment_tasks.answer, name, kind)


def _require_room(setting: str, name: str, memory_mb: int) -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() >> 20
    if taken >= memory_mb:
        raise ConfigError(
            f"{setting}: what {name} imports takes {taken} MiB of address space, reward.memory_mb allows {memory_mb}: "
            f"set it to {2 * taken}"
        )


def _serve(jobs: int, work: str, answer: Answering, timeout_s: float, memory_mb: int) -> None:
    """A worker's life: confined, it answers what comes on the socket `jobs` until that ends."""
    parent, own = os.getppid(), ":" in work
    if own:
        _make_killable(memory_mb)
    elif work == "gym":
        _confine_as_programs(memory_mb)
    else:
        _confine(memory_mb)
    frames = Frames()
    while _has_input(jobs, parent):
        data = os.read(jobs, 1 << 16)
        if not data:
            return
        for job in frames.feed(data):
            if not own:
                _limit_processor_time(timeout_s)
            _send(jobs, _answer(job, answer))


def _has_input(descriptor: int, parent: int) -> bool:
    """Wait for input; False once the parent is gone, should a copy of the socket be held open elsewhere."""
    while not select.select([descriptor], [], [], _ORPHAN_POLL_S)[0]:
        if os.getppid() != parent:
            return False
    return True


def _answer(job: Mapping[str, Any], answer: Answering = _search_or_judge) -> Reply:
    try:
        return answer(job)
    except MemoryError:
        return {"outcome": "unknown", "reason": "memory limit", "retire": True}
    except RecursionError:
        return {"outcome": "unknown", "reason": "nested too deeply", "retire": True}
    except Exception as error:  # the process boundary: sympy raises anything; the type alone is safe to write down
        return {"outcome": "unknown", "reason": type(error).__name__}


def _returned(value: object) -> dict[str, object]:
    if value is None or isinstance(value, bool):
        return {"returned": value}
    if isinstance(value, Real):
        return {"returned": float(value)}
    return {"reason": f"returned {type(value).__name__}, not True, False, None or a number"}


def _search(pattern: str, text: str) -> dict[str, object]:
    """The first group (else all) of the pattern's last match; None where it does not match."""
    last = None
    for last in re.finditer(pattern, text):  # noqa: B007
        pass
    found = None if last is None else last[1 if last.re.groups else 0] or ""
    return {"found": found}


def judge(gold: str, answer: str) -> dict[str, object]:
    """Compare by exact arithmetic where both sides are rational numbers, else as math-verify does, with what both sides
    parse to; no parsed object is ever turned into text."""
    from math_verify import verify

    from cures_core.rewards.constants import spelled_out, surely_differ
    from cures_core.rewards.regions import as_regions

    if (same := same_rationals(gold, answer)) is not None:
        return {"outcome": "correct" if same else "wrong", "reason": "exact arithmetic"}
    wanted = _parse(gold)
    if not wanted:
        return {"outcome": "unknown", "reason": "the gold answer does not parse"}
    given = _parse(answer)
    if not given:
        return {"outcome": "wrong", "reason": "the answer does not parse"}
    pairs = [_tried(as_regions, (one, other), one, other, gold, answer) for one in wanted for other in given]
    # An inequality against its interval is decided either way round.
    equal = any(verify(*pair, timeout_seconds=None, allow_set_relation_comp=True) for pair in pairs)
    if equal and all(_tried(surely_differ, False, *pair) for pair in pairs):
        return {"outcome": "wrong", "reason": "exact arithmetic"}
    if not equal and any(_tried(spelled_out, False, *pair, gold, answer) for pair in pairs):
        return {"outcome": "correct", "reason": "the rounded decimal"}
    return {"outcome": "correct" if equal else "wrong", "reason": ""}


def _tried(ask: Callable[..., T], otherwise: T, *arguments: Any) -> T:
    """What a question about parsed formulas is answered by; `otherwise` where sympy cannot say, which it tells by
    raising anything."""
    try:
        return ask(*arguments)
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return otherwise


def _parse(latex: str) -> list[Any]:
    """The parsed formula in a list, empty where it does not parse as a whole, or has a derivative in it.

    Without `first_match` a part that parses would pass for the whole: of E_{1} + \\frac{1}{2} only the fraction. With a
    derivative, math-verify takes equations whose right sides differ by a factor for equal. Only its LaTeX reader is
    used: the one of plain expressions ends in sympy's `parse_expr`, an `eval`.
    """
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse
    from sympy import Derivative

    normalization = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
    )
    reader = LatexExtractionConfig(
        try_extract_without_anchor=False, boxed_match_priority=0, normalization_config=normalization
    )
    found = parse(
        f"\\boxed{{{latex}}}",
        [reader],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
        raise_on_error=True,
    )
    formulas = [item for item in found if not isinstance(item, str)]
    return [] if any(item.has(Derivative) for item in formulas) else formulas


def _make_killable(memory_mb: int) -> None:
    """For code of the user's: a limit of memory, a process group of its own, an end with its template."""
    from cures_core.rewards.sandbox.confinement import die_with_parent

    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    os.setpgid(0, 0)
    die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else it would not learn how its own commands ended
    _silence()


def _confine_as_programs(memory_mb: int) -> None:
    """For code that evaluates what a completion says: no files but those of installed packages, no network."""
    from cures_core.rewards.sandbox.confinement import Limits, confine

    _silence()
    confine(Limits(memory_mb, _WORKER_CPU_S, 0), readable=[path for path in sys.path if path])


def _silence() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)


def _confine(memory_mb: int) -> None:
    """Limits of the kernel, then a best-effort audit hook; both after everything needed is imported."""
    for limit, value in (
        (resource.RLIMIT_AS, memory_mb << 20),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(limit, (value, value))
    _silence()
    readable = tuple({os.path.realpath(path) + os.sep for path in (sys.prefix, sys.base_prefix, *sys.path) if path})

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, mode = str(arguments[0]), arguments[1]
            if mode not in (None, "r", "rb") or not os.path.realpath(path).startswith(readable):
                raise PermissionError("no files in here")
        elif event.startswith(_FORBIDDEN_EVENTS) and event != "os.listdir":
            raise PermissionError("no system calls in here")

    sys.addaudithook(refuse)


def _limit_processor_time(timeout_s: float) -> None:
    """An orphan in the middle of a job dies of SIGXCPU, even while it holds the interpreter lock."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime + timeout_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _send(to: int, message: Mapping[str, object]) -> None:
    data = pack(message)
    while data:
        data = data[os.write(to, data) :]


if __name__ == "__main__":
    try:
        main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
    except BrokenPipeError:
        sys.exit(0)
