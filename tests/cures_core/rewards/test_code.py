"""Programs are judged by their tests, in processes from which nothing comes out but what they print or return."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import secrets
import socket
import subprocess
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.config.rewards import CodeConfig
from cures_core.errors import CuresError, OutOfMemory, SystemRefused, TryAgain
from cures_core.rewards import code, make_verifier
from cures_core.rewards.code import require_confinement
from cures_core.rewards.programs import ProgramTests, UnreadableTests, last_program, read_tests, same_output
from cures_core.rewards.sandbox import syscalls
from cures_core.rewards.sandbox.confinement import why_not
from cures_core.rewards.sandbox.runner import decoded, encoded, same
from cures_core.rewards.verifier import Verifier
from cures_core.terms import Outcome
from cures_core.testing.verifier import VerifierExam
from tests.cures_core.rewards.hostile_programs import KINDS, corpus

pytestmark = pytest.mark.skipif(why_not() != "", reason=why_not())

SUM = json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]})
PRODUCT = json.dumps({"fn_name": "mul", "inputs": [[1, 2], [3, 4]], "outputs": [2, 12]})

LIVE = {"input": "[1, 2]\n3", "output": "6", "testtype": "functional", "metadata": {"func_name": "f"}}
SLEEP = "import time; time.sleep(99)"


def block(program: str) -> str:
    return f"So:\n```python\n{program}\n```\n"


def judged(program: str, gold: str, **options: Any) -> tuple[str, str]:
    with make_verifier(CodeConfig(**options)) as verifier:
        [verdict] = verifier.judge_pairs([(block(program), gold)])
    return verdict.outcome.value, verdict.reason


class TestCode(VerifierExam):
    right = (
        (block("print(sum(map(int, input().split())))"), SUM),
        (block("def mul(a, b):\n    return a * b"), PRODUCT),
    )
    wrong = ((block("print(3)"), SUM), (block("def mul(a, b):\n    return a + b"), PRODUCT))
    seconds_per_hostile = 5.0  # none of them is run: they hold no code

    def make(self) -> Verifier:
        return make_verifier(CodeConfig())


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        (SUM, "a, b = map(int, input().split())\nprint(a + b)", "print(7)"),
        (PRODUCT, "class Solution:\n    def mul(self, a, b): return a * b", "def mul(a, b): return 2"),
        (
            json.dumps([LIVE]),
            "def f(xs, y): return sum(xs) + y",
            "def f(xs, y): return 5",
        ),
        (
            json.dumps({"test_cases": [{"type": "stdin_stdout", "input": "2", "output": "4.0"}], "language": "python"}),
            "print(float(input()) * 2)",
            "print(5)",
        ),
        (
            json.dumps([{"type": "function_call", "fn_name": "f", "input": [[3, 1]], "output": [[1, 3]]}]),
            "def f(xs): return sorted(xs)",
            "def f(xs): return xs",
        ),
        (
            json.dumps(["assert pair(1) == (1, {2: 'b'})"]),
            "def pair(n): return n, {2: 'b'}",
            "def pair(n): return [n, {}]",
        ),
        (
            json.dumps({"test": "def check(candidate):\n    assert candidate([]) is None", "entry_point": "f"}),
            "def f(xs): return None",
            "def f(xs): return 0",
        ),
        (
            "from solution import half\n\ndef test_half():\n    assert half(3) == 1.5\n    try:\n        half('x')\n"
            "    except TypeError:\n        return\n    assert False\n",
            "def half(n): return n / 2",
            "def half(n): return 1.5",
        ),
        (
            "assert Solution().f(2) == {1, 2}",
            "class Solution:\n    def f(self, n): return {1, n}",
            "class Solution: pass",
        ),
    ],
)  # fmt: skip
def test_published_layouts(gold: str, right: str, wrong: str) -> None:
    with make_verifier(CodeConfig()) as verifier:
        assert verifier.check_gold(gold) is None
        outcomes = [v.outcome.value for v in verifier.judge_pairs([(block(right), gold), (block(wrong), gold)])]
    assert outcomes == ["correct", "wrong"]


@pytest.mark.parametrize(
    ("gold", "complaint"),
    [
        ("7", "no layout"),
        ("f(7)", "nothing is asserted"),
        ("print(", "neither JSON nor Python: SyntaxError"),
        ("{}", "no layout"),
        ("[]", "no layout"),
        (json.dumps({"inputs": ["1"], "outputs": []}), "two lists of one length"),
        (json.dumps({"inputs": [[1]], "outputs": [1], "fn_name": "exec"}), "without the name of a function"),
        (json.dumps([{"input": "1"}]), "test 1 has no input or no output"),
        (json.dumps([{"input": "x", "output": "1", "testtype": "functional"}]), "is no JSON"),
        ("import numpy\nassert f(1) == 2", "the tests import numpy"),
        ("assert 1 == 1", "call nothing of the program's"),
        (json.dumps({"inputs": ["1"], "outputs": ["2"], "solution": "print(3)"}), "its own solution is wrong"),
        (json.dumps({"inputs": ["1"], "outputs": ["2"], "solution": 3}), "solution is no text"),
    ],
)
def test_golds_that_are_no_tests_are_refused_with_the_reason(gold: str, complaint: str) -> None:
    with make_verifier(CodeConfig()) as verifier:
        assert complaint in (verifier.check_gold(gold) or "")
    if "solution" not in gold:
        with pytest.raises(UnreadableTests, match=re.escape(complaint)):
            read_tests(gold, 9)


def test_a_solution_beside_the_tests_must_pass_and_only_the_first_tests_are_run() -> None:
    gold = json.dumps({"inputs": ["1", "2"], "outputs": ["1", "9"], "solution": "print(input())"})
    with make_verifier(CodeConfig(max_tests=1)) as verifier:
        assert verifier.check_gold(gold) is None
    assert judged("print(input())", gold)[0] == "wrong"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("```python\na\n```\nthen\n```py\nb\n```", ("b\n", "")),
        ("```\na\n```", ("a\n", "")),
        ("```python\na\n```\n```json\nb\n```", ("a\n", "")),
        ("```python\na\n```\n```python\nb", ("", "the last code block is never closed")),
        ("a", ("", "no code block")),
        ("```python\n\n```", ("", "no code block")),
        ("````python\n```\nx\n```\n````", ("```\nx\n```\n", "")),
    ],
)
def test_the_last_closed_block_is_the_program(completion: str, expected: tuple[str, str]) -> None:
    assert last_program(completion) == expected


def test_outputs_are_the_same_line_by_line() -> None:
    assert same_output("1 2 \n3\n\n", "1 2\n3")
    assert same_output("0.50", "0.5")
    assert same_output("1e3", "1000")
    assert not same_output("1 2", "1\n2")
    assert not same_output("1", "1 1")
    assert not same_output("nan", "1")
    assert not same_output("", "0")


def test_values_cross_between_processes_as_they_are() -> None:
    value = [1, 2.5, "x", None, True, (1,), {1, 2}, {(1, 2): [3], "k": frozenset({4})}, float("inf")]
    assert decoded(json.loads(json.dumps(encoded(value)))) == value
    assert same((1, [2.0]), [1, (2,)])
    assert not same(True, 1)
    assert not same([1], [1, 2])


_ATOMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
_KEYS = _ATOMS | st.tuples(_ATOMS)
_PLAIN = st.recursive(
    _ATOMS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(_KEYS, max_size=3)
        | st.dictionaries(_KEYS, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_PLAIN)
def test_any_plain_value_crosses(value: object) -> None:
    crossed = decoded(json.loads(json.dumps(encoded(value))))
    assert type(crossed) is type(value)
    assert crossed == value
    assert same(crossed, value)


def test_limits_decide_as_documented() -> None:
    loop = ("while True: pass", {"cpu_s": 1, "timeout_s": 60})
    assert judged(loop[0], SUM, **loop[1]) == ("wrong", "test 1: more processor time than cpu_s")
    assert judged(f"def mul(a, b):\n    {loop[0]}", PRODUCT, **loop[1]) == ("wrong", "more processor time than cpu_s")
    for program, gold in (
        ("import time; time.sleep(99)", SUM),
        ("def mul(a, b):\n    import time; time.sleep(99)", PRODUCT),
    ):
        assert judged(program, gold, timeout_s=0.5)[0] == "unknown"
    assert judged("print('x' * 2000)", SUM, output_kb=1) == ("wrong", "test 1: more output than output_kb")
    assert judged("x = bytearray(1 << 28)", SUM, memory_mb=128) == ("wrong", "test 1: MemoryError")
    assert judged("raise SystemExit(3)", SUM)[0] == "wrong"
    assert judged("def mul(a, b): return object()", PRODUCT) == ("unknown", "mul returns a object")


def test_what_programs_need_is_there() -> None:
    """Recursion, threads with a large stack, and the standard library."""
    program = """
    import bisect, collections, decimal, heapq, itertools, math, random, re, sys, threading
    sys.setrecursionlimit(10**6)
    threading.stack_size(64 << 20)
    def down(n): return 0 if n == 0 else 1 + down(n - 1)
    def main():
        down(20_000)
        print(sum(map(int, sys.stdin.readline().split())))
    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    """
    assert judged(textwrap.dedent(program), SUM) == ("correct", "")


def test_a_machine_that_cannot_confine_is_refused_unless_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "why_not", lambda: "the kernel has no Landlock")
    with make_verifier(CodeConfig()) as verifier, pytest.raises(SystemRefused, match="require_landlock = false"):
        verifier.judge_pairs([(block("print(3)"), SUM)])
    assert "files readable" in require_confinement(CodeConfig(require_landlock=False))
    assert judged("open('/tmp/x', 'w')", SUM, require_landlock=False) == ("wrong", "test 1: PermissionError")


@pytest.mark.parametrize("gold", [SUM, PRODUCT])
@pytest.mark.parametrize(
    ("number", "told"), [(errno.EMFILE, SystemRefused), (errno.EAGAIN, TryAgain), (errno.ENOMEM, OutOfMemory)]
)
def test_a_machine_that_refuses_a_process_says_nothing_of_the_program(
    number: int, told: type[CuresError], gold: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with make_verifier(CodeConfig()) as verifier:
        verifier.judge_pairs([(block("print(3)"), SUM)])  # programs can be confined here
        monkeypatch.setattr(subprocess, "Popen", refused)
        with pytest.raises(CuresError, match=f"a program's process: {os.strerror(number)}") as error:
            verifier.judge_pairs([(block("print(4)"), gold)])
    assert type(error.value) is told


def test_numbers_of_system_calls_are_the_kernels() -> None:
    header = {
        "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        "aarch64": Path("/usr/include/asm-generic/unistd.h"),
    }[platform.machine()]
    if not header.exists():
        pytest.skip("no headers of the kernel here")
    found = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text()))
    found.setdefault("newfstatat", found.get("fstatat", ""))
    machine = platform.machine()
    for name, number in {**syscalls.ALLOWED[machine], **syscalls.GUARDED[machine]}.items():
        assert found[name] == str(number), name


# Hostile programs


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """A path that must not appear, beside a file that must stay, a port that nobody may call, and a secret."""
    canary = tmp_path / "canary"
    tests = canary.with_suffix(".tests")
    tests.write_text("the tests")
    before = tests.stat()
    monkeypatch.setenv("SOME_SECRET_TOKEN", "token")
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(0)
        yield str(canary), server.getsockname()[1]
        with pytest.raises(BlockingIOError):
            server.accept()
    assert not canary.is_symlink()
    assert not canary.exists()
    after = tests.stat()
    assert (after.st_mode, after.st_mtime) == (before.st_mode, before.st_mtime)
    assert tests.read_text() == "the tests"


def runners() -> list[psutil.Process]:
    own = psutil.Process()
    return [p for p in own.children(recursive=True) if "runner.py" in " ".join(p.cmdline())]


def gauntlet(completions: list[tuple[str, str]], num_good: int) -> None:
    """What is expected cannot be guessed: a program that is right has stolen it."""
    token = secrets.token_hex(8)
    printed = json.dumps({"inputs": ["token"], "outputs": [token]})
    called = json.dumps(["assert secret('token') == " + repr(token)])
    everyone = {p.pid for p in psutil.process_iter()}
    with make_verifier(CodeConfig(cpu_s=1, timeout_s=2, output_kb=64, memory_mb=256)) as verifier:
        verifier.judge_pairs([("", printed)])
        slowest = 0.0
        for name, completion in completions:
            start = time.monotonic()
            for verdict in verifier.judge_pairs([(completion, printed), (completion, called)]):
                assert verdict.outcome is not Outcome.CORRECT, name
                assert token not in verdict.reason
            slowest = max(slowest, time.monotonic() - start)
        print(f"{2 * len(completions)} hostile programs, a pair took {slowest:.1f} s at most")
        good = [(block(f"print(sum(map(int, input().split())))  # {n}"), SUM) for n in range(num_good)]
        assert [v.outcome for v in verifier.judge_pairs(good)] == [Outcome.CORRECT] * num_good
        assert runners() == []
    left = [p for p in psutil.process_iter() if p.pid not in everyone and "runner.py" in " ".join(p.cmdline() or [])]
    assert left == []


def test_corpus_is_large_and_distinct() -> None:
    programs = {completion for _, completion in corpus("/x", 1)}
    assert len(programs) >= 200
    assert len(KINDS) >= 40


def test_sample_of_hostile_programs(trap: tuple[str, int]) -> None:
    gauntlet(list(corpus(*trap))[::23], num_good=4)


@pytest.mark.slow
def test_all_hostile_programs(trap: tuple[str, int]) -> None:
    gauntlet(list(corpus(*trap)), num_good=100)


def test_tests_parse_without_running_anything() -> None:
    assert read_tests("assert f(open('/etc/passwd').read()) == 1", 9) == ProgramTests(
        code="assert f(open('/etc/passwd').read()) == 1", names=("f",)
    )
