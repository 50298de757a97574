"""Reads the program out of a completion, and the tests out of a gold answer. Nothing of either is run here.

Gold answers come in the layouts in which sets of programming problems are published; JSON, but for the last:

- {"inputs": [...], "outputs": [...], "fn_name": ...?}: APPS, TACO, DeepCoder. Without a name, standard input, output.
- [{"input", "output", "testtype": "stdin" or "functional", "metadata": {"func_name"}}]: LiveCodeBench, DeepCoder.
- {"test_cases": [{"type": "stdin_stdout" or "function_call", "fn_name", "input", "output"}]}: PrimeIntellect.
- ["assert f(1) == 2", ...]: MBPP. {"test": code, "entry_point": name}: HumanEval.
- Python text, no JSON: test functions that import from `solution`, as KodCode's, or bare asserts.

An object may hold "solution" beside them, a program that must pass them.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any

MAX_PROGRAM_CHARS = 100_000
"""Longest program that is run, in characters."""
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+-]*)[^\n`]*$", re.MULTILINE)
_PYTHON = ("", "python", "python3", "py")
_GIVEN = frozenset([*dir(builtins), "same", "same_as_published", "__name__"])
_HEAD = """\
def same_as_published(given, wanted):
    return same(given, wanted) or (isinstance(wanted, list) and len(wanted) == 1 and same(given, wanted[0]))

"""
"""APPS wraps what a function returns in a list, in some of its problems."""


class UnreadableTests(ValueError):
    """A gold answer that is no tests, with the reason."""


@dataclass(frozen=True)
class ProgramTests:
    """What a program has to do."""

    runs: tuple[tuple[str, str], ...] = ()
    """(standard input, standard output expected)."""
    code: str = ""
    """Test code."""
    names: tuple[str, ...] = ()
    """The program's functions that the test code calls."""
    entry_point: str = ""
    """The function that HumanEval's `check` is given."""
    solution: str = ""
    """A program that passes, where one is known."""


def last_program(completion: str) -> tuple[str, str]:
    """(program, why there is none): the content of the last fenced block of Python, or of no named language.

    A last block that is never closed is no program, and no earlier one is taken instead.
    """
    program, opened = "", ""
    inside, begin, python = False, 0, False
    for fence in _FENCE.finditer(completion):
        if not inside:
            inside, begin, opened = True, fence.end() + 1, fence[1]
            python = fence[2].lower() in _PYTHON
        elif fence[1].startswith(opened) and not fence[2]:
            inside = False
            if python:
                program = completion[begin : fence.start()]
    if inside and python:
        return "", "the last code block is never closed"
    if not program.strip():
        return "", "no code block"
    if len(program) > MAX_PROGRAM_CHARS:
        return "", f"the program is longer than {MAX_PROGRAM_CHARS:,} characters"
    return program, ""


def read_tests(gold: str, most: int) -> ProgramTests:
    """The first `most` tests of a gold answer. Raises `UnreadableTests`."""
    try:
        found = json.loads(gold)
    except (ValueError, RecursionError):
        return _with_code(gold)
    solution = found.get("solution", "") if isinstance(found, dict) else ""
    if not isinstance(solution, str):
        raise UnreadableTests("solution is no text")
    return replace(_tests(found, most), solution=solution)


def _tests(found: Any, most: int) -> ProgramTests:
    if isinstance(found, dict) and "test_cases" in found:
        found = found["test_cases"]
    if isinstance(found, dict) and isinstance(found.get("test"), str):
        return _with_code(found["test"], str(found.get("entry_point") or ""))
    if isinstance(found, dict) and "inputs" in found:
        return _apps(found, most)
    if isinstance(found, list) and found and all(isinstance(test, str) for test in found):
        return _with_code("\n".join(found[:most]))
    if isinstance(found, list) and found and all(isinstance(test, dict) for test in found):
        return _cases(found[:most])
    raise UnreadableTests("no layout of tests that is known: see docs/verifiers.md")


def _apps(found: Mapping[str, Any], most: int) -> ProgramTests:
    inputs, outputs = found["inputs"], found.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs) or not inputs:
        raise UnreadableTests("inputs and outputs are not two lists of one length")
    name = found.get("fn_name")
    pairs = list(zip(inputs, outputs, strict=True))[:most]
    if name is None:
        return ProgramTests(runs=tuple((_lines(given), _lines(wanted)) for given, wanted in pairs))
    return _with_calls([(name, given, wanted) for given, wanted in pairs])


def _cases(cases: Sequence[Mapping[str, Any]]) -> ProgramTests:
    """Tests that say for themselves of which type they are; all of one type."""
    kinds = {str(case.get("type") or case.get("testtype") or "stdin") for case in cases}
    for i, case in enumerate(cases, start=1):
        if "input" not in case or "output" not in case:
            raise UnreadableTests(f"test {i} has no input or no output")
    if kinds <= {"stdin", "stdin_stdout"}:
        return ProgramTests(runs=tuple((_lines(case["input"]), _lines(case["output"])) for case in cases))
    if kinds == {"function_call"}:
        return _with_calls([(case.get("fn_name"), case["input"], case["output"]) for case in cases])
    if kinds == {"functional"}:
        return _with_calls([_live_code_bench(case) for case in cases])
    raise UnreadableTests(f"tests of the types {', '.join(sorted(kinds))} together, or of one that is not known")


def _live_code_bench(case: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Arguments as JSON, one a line, and the result as JSON."""
    metadata = case.get("metadata") or {}
    try:
        metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
        arguments = [json.loads(line) for line in case["input"].split("\n") if line.strip()]
        return metadata.get("func_name"), arguments, json.loads(case["output"])
    except (ValueError, AttributeError) as error:
        raise UnreadableTests("a functional test whose input, output or metadata is no JSON") from error


def _lines(text: object) -> str:
    """Standard input or output: a text, or a list of lines."""
    if isinstance(text, list) and all(isinstance(line, str) for line in text):
        return "\n".join(text)
    if not isinstance(text, str):
        raise UnreadableTests(f"standard input or output that is a {type(text).__name__}, not text")
    return text


def _with_calls(calls: Sequence[tuple[Any, Any, Any]]) -> ProgramTests:
    lines = []
    for name, arguments, wanted in calls:
        if not isinstance(name, str) or not name.isidentifier() or name in _GIVEN:
            raise UnreadableTests("a call without the name of a function (fn_name, func_name)")
        if not isinstance(arguments, list):
            raise UnreadableTests(f"arguments of {name} that are no list")
        lines.append(f"assert same_as_published({name}(*{arguments!r}), {wanted!r})")
    names = tuple(dict.fromkeys(str(name) for name, _, _ in calls))
    return ProgramTests(code=_HEAD + "\n".join(lines), names=names)


def _with_code(code: str, entry_point: str = "") -> ProgramTests:
    """Test code, and which functions of the program it calls: names that it does not bind itself, and imports."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnreadableTests(f"neither JSON nor Python: {type(error).__name__}") from error
    nodes = list(ast.walk(tree))
    if not any(isinstance(node, ast.Assert | ast.Raise) for node in nodes):
        raise UnreadableTests("nothing is asserted")
    if foreign := sorted(set(_modules(nodes)) - sys.stdlib_module_names - {"solution"}):
        raise UnreadableTests(f"the tests import {foreign[0]}: only the standard library is there")
    imported = [
        alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module == "solution"
        for alias in node.names
    ]
    read = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    free = set(read) - set(_bound(nodes)) - _GIVEN
    names = sorted({*imported, *free, *([entry_point] if entry_point else [])} - {"*"})
    if not names:
        raise UnreadableTests("the tests call nothing of the program's")
    return ProgramTests(code=code, names=tuple(names), entry_point=entry_point)


def _modules(nodes: Sequence[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def _bound(nodes: Sequence[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def same_output(given: str, wanted: str) -> bool:
    """Do two outputs agree line by line, white space at the ends of lines aside? Numbers in them count by value."""
    mine, theirs = _tidy(given), _tidy(wanted)
    return mine == theirs or (len(mine) == len(theirs) and all(map(_same_line, mine, theirs)))


def _tidy(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def _same_line(given: str, wanted: str) -> bool:
    mine, theirs = given.split(), wanted.split()
    return len(mine) == len(theirs) and all(map(_same_word, mine, theirs))


def _same_word(given: str, wanted: str) -> bool:
    if given == wanted:
        return True
    if len(given) > 400 or len(wanted) > 400:
        return False
    try:
        return Decimal(given) == Decimal(wanted)
    except InvalidOperation:
        return False
