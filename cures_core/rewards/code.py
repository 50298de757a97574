"""Knows when a completion's program passes the tests that are its gold answer; it runs confined (`sandbox`)."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from cures_core.config.rewards import CodeConfig
from cures_core.errors import SystemRefused
from cures_core.failures import Scene, machine_failure
from cures_core.rewards.programs import ProgramTests, UnreadableTests, last_program, read_tests, same_output
from cures_core.rewards.sandbox.confinement import why_not
from cures_core.rewards.verifier import Item, Verifier
from cures_core.terms import Outcome, Verdict

STARTUP_S = 30.0
"""Seconds that a process may need, on a busy machine, to start and to answer, beside the program's own."""
_GOLDS_REMEMBERED = 1024
_RUNNER = Path(__file__).parent / "sandbox" / "runner.py"
_START = Scene("a program's process", sys.executable, less_memory="leave the process more")
_WRONG = {
    "cpu": "more processor time than cpu_s",
    "output": "more output than output_kb",
    "error": "it raises an exception",
}

Decision = tuple[Outcome, str]


class CodeVerifier(Verifier):
    """`correct` where the program in the completion's last code block passes every test.

    A program that fails, raises, or takes more memory, processor time or output than it may is `wrong`. Where time ran
    out while it waited, where its process was killed, or where tests ask for what cannot be compared, the verdict is
    `unknown`. Raises `SystemRefused` where programs cannot be confined.
    """

    def __init__(self, cfg: CodeConfig) -> None:
        self._cfg = cfg
        self._threads: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._tests = lru_cache(_GOLDS_REMEMBERED)(self._read)

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        found = [(*last_program(completion), self._tests(prompt.answer)) for completion, prompt in items]
        wanted = dict.fromkeys(
            (program, tests) for program, _, tests in found if program and isinstance(tests, ProgramTests)
        )
        decisions = dict(zip(wanted, self._decide(list(wanted)), strict=True))
        return [
            _verdict(why, tests, decisions.get((program, tests)) if isinstance(tests, ProgramTests) else None)
            for program, why, tests in found
        ]

    def check_gold(self, answer: str) -> str | None:
        """The tests can be read, and a solution that is with them passes."""
        tests = self._tests(answer)
        if isinstance(tests, str):
            return tests
        if not tests.solution:
            return None
        [(outcome, reason)] = self._decide([(tests.solution, tests)])
        return None if outcome is Outcome.CORRECT else f"its own solution is {outcome.value}: {reason}"

    def same_answer(self, first: str, second: str) -> bool:
        one, other = self._tests(first), self._tests(second)
        return isinstance(one, ProgramTests) and one == other

    def close(self) -> None:
        with self._lock:
            if self._threads is not None:
                self._threads.shutdown()
                self._threads = None

    def _read(self, gold: str) -> ProgramTests | str:
        if not gold.strip():
            return "empty"
        try:
            return read_tests(gold, self._cfg.max_tests)
        except UnreadableTests as error:
            return str(error)

    def _decide(self, wanted: Sequence[tuple[str, ProgramTests]]) -> list[Decision]:
        if not wanted:
            return []
        with self._lock:
            if self._threads is None:
                require_confinement(self._cfg)
                self._threads = ThreadPoolExecutor(self._cfg.workers, "code")
            threads = self._threads
        return list(threads.map(lambda pair: decide(pair[0], pair[1], self._cfg), wanted))


def _verdict(no_program: str, tests: ProgramTests | str, decision: Decision | None) -> Verdict:
    if isinstance(tests, str):
        return Verdict(Outcome.UNKNOWN, rule="code", reason=f"the gold answer holds no tests ({tests})")
    if decision is None:
        return Verdict(Outcome.WRONG, rule="code", reason=no_program)
    return Verdict(decision[0], rule="code", reason=decision[1])


def require_confinement(cfg: CodeConfig) -> str:
    """What holds programs in, in words. Raises `SystemRefused`, with the remedy, where they cannot be confined."""
    missing = why_not()
    if missing and cfg.require_landlock:
        raise SystemRefused(
            f"reward.type = 'code': programs cannot be confined here, as {missing}. Use another kernel, or set "
            "reward.require_landlock = false: programs then can read every file that this account can"
        )
    outcome, reason = decide("print(6 * 7)", ProgramTests(runs=(("", "42"),)), cfg)
    if outcome is not Outcome.CORRECT:
        raise SystemRefused(f"reward.type = 'code': a program that prints 42 is {outcome.value} here ({reason})")
    return f"system calls filtered, {'files readable' if missing else 'files hidden'}, {cfg.memory_mb} MiB a program"


def decide(program: str, tests: ProgramTests, cfg: CodeConfig) -> Decision:
    """Run a program in processes of its own. Never raises on what it does, but where the machine refuses to start them:
    that says nothing of the program."""
    task: dict[str, Any] = {
        "program": program,
        "limits": {"memory_mb": cfg.memory_mb, "cpu_s": cfg.cpu_s, "output_bytes": cfg.output_kb << 10},
        "wall_s": cfg.timeout_s,
        "hide_files": not why_not(),
    }
    try:
        return _decide_runs(task, tests, cfg) if tests.runs else _decide_checks(task, tests, cfg)
    except subprocess.TimeoutExpired:
        return Outcome.UNKNOWN, "timeout"
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and (refused := machine_failure(error, _START)):
            raise refused from error
        return Outcome.UNKNOWN, f"its process has failed ({type(error).__name__})"


def _decide_runs(task: Mapping[str, Any], tests: ProgramTests, cfg: CodeConfig) -> Decision:
    """What the program prints is compared here: its process is given inputs alone."""
    with _start("runs") as process:
        try:
            out, _ = process.communicate(_json({**task, "inputs": [given for given, _ in tests.runs]}), _patience(cfg))
        finally:
            process.kill()
    for i, result in enumerate(json.loads(out), start=1):
        end, reason = result["end"], f"test {i}: {result['error'] or result['end']}"
        if end in ("timeout", "killed", "not confined"):
            return Outcome.UNKNOWN, f"test {i}: {end}"
        if end != "exit":
            return Outcome.WRONG, reason if end == "error" else f"test {i}: {_WRONG.get(end, end)}"
        if not same_output(result["output"], tests.runs[i - 1][1]):
            return Outcome.WRONG, f"test {i}: another output"
    return Outcome.CORRECT, ""


def _decide_checks(task: Mapping[str, Any], tests: ProgramTests, cfg: CodeConfig) -> Decision:
    """The test code runs in one process, the program in another: what is expected never enters the latter."""
    ours, theirs = socket.socketpair()
    code = {"tests": tests.code, "names": tests.names, "entry_point": tests.entry_point}
    check = {key: value for key, value in task.items() if key != "program"} | code
    with ours, theirs, _start("serves", theirs) as program, _start("checks", ours) as checker:
        theirs.close()
        ours.close()
        try:
            assert program.stdin is not None
            program.stdin.write(_json(task))
            program.stdin.close()
            out, _ = checker.communicate(_json(check), _patience(cfg))
        finally:
            checker.kill()
            end = program.poll()
            program.kill()
    if not out:
        return Outcome.UNKNOWN, "timeout" if checker.returncode == -signal.SIGALRM else "the tests' process has ended"
    found = json.loads(out)
    outcome = Outcome(found["outcome"])
    if outcome is Outcome.WRONG and end is not None and end < 0:
        return (Outcome.UNKNOWN, "killed") if end == -signal.SIGKILL else (Outcome.WRONG, _ended_by(-end))
    return outcome, found["reason"]


def _ended_by(number: int) -> str:
    return _WRONG["cpu"] if number == signal.SIGXCPU else f"signal {number}"


def _start(mode: str, calls: socket.socket | None = None) -> subprocess.Popen[bytes]:
    descriptors = [] if calls is None else [calls.fileno()]
    return subprocess.Popen(
        [sys.executable, "-S", "-s", "-P", str(_RUNNER), mode, *map(str, descriptors)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if mode != "serves" else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=_environment(),
        pass_fds=descriptors,
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    """No secrets; a fixed hash seed, so that sets print alike."""
    return {
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "LANG": "C.UTF-8",
    }


def _patience(cfg: CodeConfig) -> float:
    return cfg.timeout_s + STARTUP_S


def _json(task: Mapping[str, Any]) -> bytes:
    return json.dumps(task).encode()
