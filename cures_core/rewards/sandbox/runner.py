"""The process that runs a program: `python runner.py MODE`, told what to do on standard input.

MODE is one of

- `runs`: run the program once for each standard input, in a forked child each, and print what came of it as JSON. The
  children are confined; this process, which runs nothing of theirs, waits, reads their output and kills them in time.
- `serves`: confined, run the program, then answer calls of its functions on the socket that argument 2 names.
- `checks`: confined, run test code whose calls of the program's functions go to that socket; print the outcome as JSON.

A process that holds the program is never sent what is expected of it: `runs` gets inputs alone, and test code runs in
a process of its own. What a program forges, it would have to know. Whatever it does ends with its process.
"""

from __future__ import annotations

import builtins
import json
import math
import os
import select
import signal
import sys
import time
import types
from typing import TYPE_CHECKING

from cures_core.rewards.sandbox.confinement import Limits, confine

if TYPE_CHECKING:  # every program waits for what this module imports
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

MAX_LINE_BYTES = 1 << 22
"""Longest message between test code and program, in bytes."""
MAX_DEPTH = 50
"""Deepest nesting of a value between them."""
_ERROR_BYTES = 4096
_REFUSED = 125
"""Exit status of a child that could not be confined."""
_PLAIN = (bool, int, float, str, type(None))
_SEQUENCES = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


def main(mode: str, *arguments: str) -> None:
    """Read the task (JSON) from standard input to its end, and do it."""
    task = json.loads(sys.stdin.buffer.read())
    limits = Limits(**task["limits"])
    sys.path[:] = [path for path in sys.path if path.startswith((sys.base_prefix, sys.base_exec_prefix))]
    sys.argv = ["program"]
    if mode == "runs":
        print(json.dumps(_run_all(task, limits)))
    elif mode == "serves":
        _serve(int(arguments[0]), task, limits)
    else:
        print(json.dumps(_check(int(arguments[0]), task, limits)))


# Programs that read standard input


def _run_all(task: Mapping[str, Any], limits: Limits) -> list[dict[str, object]]:
    """What came of the program for each input, up to the first that ended badly."""
    deadline, used, found = time.monotonic() + task["wall_s"], 0.0, []
    for text in task["inputs"]:
        cpu_s = max(1, math.ceil(limits.cpu_s - used))
        result = _run(task, text, Limits(limits.memory_mb, cpu_s, limits.output_bytes), deadline)
        used += result.pop("cpu_s")
        if used > limits.cpu_s:
            result["end"] = "cpu"
        found.append(result)
        if result["end"] != "exit":
            break
    return found


def _run(task: Mapping[str, Any], text: str, limits: Limits, deadline: float) -> dict[str, Any]:
    streams = [_stream(text.encode("utf-8", "surrogatepass")), _stream(), _stream()]
    child = os.fork()
    if child == 0:
        _become_program(streams, task, limits)
    handle = os.pidfd_open(child)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    in_time = bool(poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))))
    if not in_time:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    written, complaint = _content(streams[1], limits.output_bytes), _content(streams[2], limits.output_bytes)
    for descriptor in (handle, *streams):
        os.close(descriptor)
    full = limits.output_bytes in (len(written), len(complaint))
    return {
        "end": _ending(status, in_time, full),
        "output": written.decode("utf-8", "replace"),
        "error": "" if status == 0 else _error_name(complaint),
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }


def _ending(status: int, in_time: bool, full: bool) -> str:
    code = os.waitstatus_to_exitcode(status)
    if not in_time:
        return "timeout"
    if code == 0:
        return "exit"
    if code == _REFUSED:
        return "not confined"
    if full:
        return "output"
    return {-signal.SIGXCPU: "cpu", -signal.SIGKILL: "killed"}.get(code, "error" if code > 0 else f"signal {-code}")


def _become_program(streams: Sequence[int], task: Mapping[str, Any], limits: Limits) -> NoReturn:
    """The child: its streams are files in memory, which the limit on files cuts off."""
    try:
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        os.closerange(len(streams), 1 << 12)
        _open_streams()
        confine(limits, files=task["hide_files"])
    except OSError:
        os._exit(_REFUSED)
    os._exit(_status_of(lambda: _execute(task["program"])))


def _open_streams() -> None:
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        stream = open(number, mode, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _status_of(work: Callable[[], object]) -> int:
    """Exit status of a program, as an interpreter's, with what stood in its buffer written out."""
    status = 1
    try:
        work()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # the process boundary: a program may raise anything
        os.write(2, type(error).__name__.encode()[:_ERROR_BYTES])
    try:
        sys.stdout.flush()
    except BaseException:
        status = status or 1
    return status & 0xFF


def _execute(source: str) -> types.ModuleType:
    """Run a program as `__main__`. Everything before this line has made the process one that may."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(source, "<program>", "exec", dont_inherit=True), module.__dict__)
    return module


def _stream(data: bytes = b"") -> int:
    """A file in memory that holds `data`, to be read from its begin."""
    descriptor = os.memfd_create("stream")
    with open(descriptor, "wb", closefd=False) as stream:
        stream.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _content(descriptor: int, limit: int) -> bytes:
    return os.pread(descriptor, limit, 0)


def _error_name(complaint: bytes) -> str:
    """The exception's name, all of what a program complains about that is handed on."""
    last = complaint.decode("ascii", "replace").strip().rpartition("\n")[2].partition(":")[0]
    return last if last.isidentifier() and len(last) <= 60 else ""


# Functions that test code calls


class _ForeignError(Exception):
    """What the program has raised and is no built-in exception."""


class _UnreadableError(Exception):
    """A value that is no plain data: it cannot leave its process."""


def _serve(calls: int, task: Mapping[str, Any], limits: Limits) -> None:
    _silence()
    lines = open(calls, "rb", closefd=False)  # noqa: SIM115
    confine(limits, files=task["hide_files"])
    program = _execute(task["program"])
    _send(calls, "{}")
    for line in lines:
        _send(calls, json.dumps(_called(program, json.loads(line))))


def _called(program: types.ModuleType, call: Mapping[str, Any]) -> dict[str, object]:
    try:
        arguments, named = decoded(call["arguments"]), decoded(call["named"])
        return {"value": encoded(_function(program, call["name"])(*arguments, **named))}
    except _UnreadableError as error:
        return {"unreadable": str(error)}
    except (MemoryError, RecursionError, Exception) as error:  # it goes on: the test may expect it
        return {"raised": type(error).__name__, "text": str(error)[:1000]}


def _send(calls: int, message: str) -> None:
    """With write alone: a confined process has no calls of sockets, but those of files."""
    data = message.encode("utf-8", "surrogatepass") + b"\n"
    while data:
        data = data[os.write(calls, data) :]


def _function(program: types.ModuleType, name: str) -> Callable[..., object]:
    """A function of the program, or a method of its class `Solution`."""
    found = getattr(program, name, None)
    if found is None and (owner := getattr(program, "Solution", None)) is not None:
        found = getattr(owner(), name, None)
    if not callable(found):
        raise NameError(f"the program has no function {name}")
    return found  # type: ignore[no-any-return]


def _silence() -> None:
    """What the program prints goes into a file in memory, up to the limit."""
    sink = _stream()
    for number in range(3):
        os.dup2(sink, number)
    os.close(sink)
    _open_streams()


def encoded(value: object, depth: int = 0) -> object:
    """Plain data as JSON that tells tuples, sets and dictionaries with any keys apart. Raises `_UnreadableError`."""
    if type(value) in _PLAIN:
        return value
    if depth < MAX_DEPTH:
        if type(value).__name__ in _SEQUENCES and type(value) in _SEQUENCES.values():
            return [type(value).__name__, *(encoded(item, depth + 1) for item in value)]  # type: ignore[attr-defined]
        if isinstance(value, dict):
            pairs = [[encoded(key, depth + 1), encoded(item, depth + 1)] for key, item in value.items()]
            return ["dict", *pairs]
        if isinstance(value, range):
            return ["list", *value]
    raise _UnreadableError(type(value).__name__)


def decoded(value: Any) -> Any:
    """What `encoded` has made; raises ValueError or TypeError for anything else."""
    if not isinstance(value, list):
        if type(value) not in _PLAIN:
            raise ValueError("no plain data")
        return value
    kind, *items = value
    if kind == "dict":
        return {decoded(key): decoded(item) for key, item in items}
    return _SEQUENCES[kind](decoded(item) for item in items)


# Test code


class _Undecided(BaseException):
    """The tests cannot say: what they ask for cannot leave the program's process. No test catches it by accident."""


class _Solution:
    """Stands for the class `Solution`: its methods are called on a new one each."""

    def __init__(self, program: _Program) -> None:
        self._program = program

    def __call__(self) -> _Solution:
        return self

    def __getattr__(self, name: str) -> Callable[..., object]:
        return self._program.function(name)


class _Program:
    """The program's functions, as test code sees them."""

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._answers = open(calls, "rb", closefd=False)  # noqa: SIM115

    def wait(self) -> None:
        """Until it has run. Raises `AssertionError` where it has ended instead."""
        self._answer()

    def function(self, name: str) -> Callable[..., object]:
        """A stand-in that calls the program's function `name` with plain data."""

        def call(*arguments: object, **named: object) -> object:
            try:
                message = {"name": name, "arguments": encoded(list(arguments)), "named": encoded(named)}
            except _UnreadableError as error:
                raise _Undecided(f"{name} is called with a {error}") from None
            try:
                _send(self._calls, json.dumps(message))
            except OSError:
                raise AssertionError("the program has ended") from None
            return self._value(name, self._answer())

        call.__name__ = name
        return call

    def _answer(self) -> dict[str, Any]:
        try:
            line = self._answers.readline(MAX_LINE_BYTES)
            answer = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError, OSError):
            answer = None
        if not isinstance(answer, dict):
            raise AssertionError("the program has ended, or does not answer")
        return answer

    def _value(self, name: str, answer: Mapping[str, Any]) -> object:
        if "unreadable" in answer:
            raise _Undecided(f"{name} returns a {str(answer['unreadable'])[:60]}")
        if "raised" in answer:
            kind = getattr(builtins, str(answer["raised"]), None)
            known = isinstance(kind, type) and issubclass(kind, Exception)
            raise (kind if known else _ForeignError)(str(answer.get("text")))  # type: ignore[misc]
        try:
            return decoded(answer["value"])
        except (ValueError, TypeError, KeyError, RecursionError):
            raise AssertionError("the program's answer is no plain data") from None


def _check(calls: int, task: Mapping[str, Any], limits: Limits) -> dict[str, str]:
    program = _Program(calls)
    verdict = os.dup(1)
    _silence()
    confine(limits, files=task["hide_files"])
    found = _checked(program, task)
    sys.stdout = open(verdict, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    return found


def _checked(program: _Program, task: Mapping[str, Any]) -> dict[str, str]:
    try:
        signal.setitimer(signal.ITIMER_REAL, task["wall_s"])  # which ends this process
        program.wait()
        _run_tests(program, task)
    except _Undecided as reason:
        return {"outcome": "unknown", "reason": str(reason)}
    except MemoryError:
        return {"outcome": "unknown", "reason": "the tests need more memory"}
    except (Exception, SystemExit) as error:
        return {"outcome": "wrong", "reason": type(error).__name__}
    return {"outcome": "correct", "reason": ""}


def _run_tests(program: _Program, task: Mapping[str, Any]) -> None:
    """Run test code as a module, then its functions `test_*`, and HumanEval's `check`."""
    solution = types.ModuleType("solution")
    for name in task["names"]:
        setattr(solution, name, _Solution(program) if name == "Solution" else program.function(name))
    sys.modules["solution"] = solution
    module = types.ModuleType("tests")
    module.__dict__.update({name: getattr(solution, name) for name in task["names"]}, same=same)
    exec(compile(task["tests"], "<tests>", "exec", dont_inherit=True), module.__dict__)
    if (entry := task.get("entry_point")) and callable(check := getattr(module, "check", None)):
        check(program.function(entry))
    for name, test in list(vars(module).items()):
        if name.startswith("test_") and callable(test):
            test()


def same(given: object, wanted: object) -> bool:
    """Are two values equal where tuples are lists, and floats need to agree to nine digits only?"""
    if isinstance(given, list | tuple) and isinstance(wanted, list | tuple):
        return len(given) == len(wanted) and all(map(same, given, wanted))
    if isinstance(given, dict) and isinstance(wanted, dict):
        return given.keys() == wanted.keys() and all(same(given[key], wanted[key]) for key in wanted)
    if isinstance(given, float) or (isinstance(wanted, float) and isinstance(given, int)):
        return isinstance(wanted, int | float) and math.isclose(given, wanted, rel_tol=1e-9, abs_tol=1e-9)
    return type(given) is type(wanted) and given == wanted


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    main(*sys.argv[1:])
