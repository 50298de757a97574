"""The built-in mixture for small pretrained models: word sums, choices and Python functions, generated from a seed.

Three kinds of task that no one verifier could judge: `numeric` reads the sums, `choice` the letters, and `code` runs
the functions against the tests that are their gold answers. A pretrained model of 135M parameters solves some of each,
as every problem begins with a worked one of its source: that shows the form in which answers are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cures_core.builtin.sums import NAMES, THINGS

_LETTERS = "ABC"
_WORDS = {
    "an animal": ("horse", "rabbit", "tiger", "sheep", "monkey", "goat", "lion", "wolf"),
    "a fruit": ("apple", "banana", "cherry", "grape", "lemon", "peach", "pear", "plum"),
    "a colour": ("black", "blue", "brown", "green", "purple", "red", "white", "yellow"),
    "a tool": ("axe", "drill", "hammer", "knife", "saw", "shovel", "spade", "wrench"),
    "a number": ("eight", "five", "four", "nine", "seven", "six", "three", "two"),
    "a month": ("April", "August", "January", "July", "June", "March", "May", "October"),
}

Made = tuple[str, str, str]
"""(level, question, gold answer)."""


def _pick(rng: np.random.Generator, values: tuple[str, ...]) -> str:
    return values[rng.integers(len(values))]


def _sum(rng: np.random.Generator) -> Made:
    """A word sum of one step; `level` is what is to be done."""
    name, thing = _pick(rng, NAMES), _pick(rng, THINGS)
    a, b = rng.integers(2, 31, 2).tolist()
    match int(rng.integers(3)):
        case 0:
            told = f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?"
            return "plus", told, str(a + b)
        case 1:
            told = f"{name} has {a + b} {thing} and gives {b} away. How many {thing} does {name} have left?"
            return "minus", told, str(a)
        case _:
            bags, each = 2 + a % 8, 2 + b % 8
            told = f"{name} has {bags} bags with {each} {thing} in each. How many {thing} does {name} have?"
            return "times", told, str(bags * each)


def _choice(rng: np.random.Generator) -> Made:
    """Which of three words is of a kind, or which of three numbers the largest; `level` says which of the two."""
    right = int(rng.integers(len(_LETTERS)))
    if rng.random() < 0.5:
        kinds = tuple(_WORDS)
        wanted, *others = (kinds[i] for i in rng.permutation(len(kinds))[: len(_LETTERS)])
        options = [_pick(rng, _WORDS[kind]) for kind in others]
        options.insert(right, _pick(rng, _WORDS[wanted]))
        level, asked = "words", f"Which of these is {wanted}?"
    else:
        numbers = sorted(rng.choice(np.arange(2, 100), len(_LETTERS), replace=False).tolist())
        options = [str(number) for number in numbers[:-1]]
        options.insert(right, str(numbers[-1]))
        level, asked = "numbers", "Which of these numbers is the largest?"
    listed = "\n".join(f"({letter}) {option}" for letter, option in zip(_LETTERS, options, strict=True))
    return level, f"{asked}\n{listed}", _LETTERS[right]


@dataclass(frozen=True, slots=True)
class _Given:
    """What functions of a kind are given: names for their parameters, one of which is taken, and the tests' inputs."""

    kind: str
    parameters: tuple[str, ...]
    inputs: tuple[tuple[Any, ...], ...]


_NUMBER = _Given("number", ("n", "x", "value", "number", "m"), ((-4,), (3,), (11,), (20,)))
_PAIR = _Given("pair", ("a, b", "x, y", "m, n", "first, second", "left, right"), ((2, 5), (9, 4), (-3, 3), (0, 7)))
_LIST = _Given("list", ("items", "numbers", "values", "xs", "row"), (([4, 1, 9],), ([7],), ([2, 2, 8, 5],)))
_TEXT = _Given("text", ("text", "word", "s", "name", "line"), (("abc",), ("Two",), ("noon!",)))


@dataclass(frozen=True, slots=True)
class _Function:
    """A function to be written. {x} and {y} stand for its parameters, {k} for a number; `value` is told (x, y, k)."""

    name: str
    told: str
    result: str
    value: Callable[[Any, Any, int], object]
    given: _Given


_FUNCTIONS = (
    _Function("plus_{k}", "{x} plus {k}", "{x} + {k}", lambda x, _, k: x + k, _NUMBER),
    _Function("times_{k}", "{x} times {k}", "{x} * {k}", lambda x, _, k: x * k, _NUMBER),
    _Function("above_{k}", "True if {x} is greater than {k}, else False", "{x} > {k}", lambda x, _, k: x > k, _NUMBER),
    _Function("add", "the sum of {x} and {y}", "{x} + {y}", lambda x, y, _: x + y, _PAIR),
    _Function("subtract", "{x} minus {y}", "{x} - {y}", lambda x, y, _: x - y, _PAIR),
    _Function("larger", "the larger of {x} and {y}", "max({x}, {y})", lambda x, y, _: max(x, y), _PAIR),
    _Function("total", "the sum of the list {x}", "sum({x})", lambda x, *_: sum(x), _LIST),
    _Function("first", "the first element of the list {x}", "{x}[0]", lambda x, *_: x[0], _LIST),
    _Function("last", "the last element of the list {x}", "{x}[-1]", lambda x, *_: x[-1], _LIST),
    _Function("largest", "the largest number in the list {x}", "max({x})", lambda x, *_: max(x), _LIST),
    _Function("length", "the length of the list {x}", "len({x})", lambda x, *_: len(x), _LIST),
    _Function("upper", "the string {x} in capital letters", "{x}.upper()", lambda x, *_: x.upper(), _TEXT),
    _Function("backwards", "the string {x} reversed", "{x}[::-1]", lambda x, *_: x[::-1], _TEXT),
)
_ASKED = (
    "Write a Python function {} that returns {}.",
    "In Python, define {}, a function that returns {}.",
    "Write {} in Python: it should return {}.",
)


def _code(rng: np.random.Generator) -> Made:
    """A function to write; gold are tests, with a solution beside them. `level` is the kind of what it is given."""
    function = _FUNCTIONS[rng.integers(len(_FUNCTIONS))]
    parameters, k = _pick(rng, function.given.parameters), int(rng.integers(2, 13))
    words = {"x": parameters.partition(", ")[0], "y": parameters.rpartition(", ")[2], "k": k}
    name = function.name.format(**words)
    tests = {
        "fn_name": name,
        "inputs": function.given.inputs,
        "outputs": [function.value(given[0], given[-1], k) for given in function.given.inputs],
        "solution": f"def {name}({parameters}):\n    return {function.result.format(**words)}\n",
    }
    asked = _pick(rng, _ASKED).format(f"{name}({parameters})", function.told.format(**words))
    return function.given.kind, asked, json.dumps(tests)


SOURCES: dict[str, Callable[[np.random.Generator], Made]] = {"sums": _sum, "choices": _choice, "code": _code}
WORKED = {
    "sums": "Tom has three cups and gets five more. How many cups does Tom have now?\nAnswer: 3 + 5 = 8",
    "choices": "Which of these is a bird?\n(A) chair\n(B) eagle\n(C) bread\nAnswer: (B)",
    "code": "Write a Python function square(n) that returns n times n.\n"
    "Answer:\n```python\ndef square(n):\n    return n * n\n```",
}
"""A question of each source with its answer, written as the template of configs/mixed.toml writes the next question."""


def build(per_source: int, seed: int, seen: set[tuple[str, ...]]) -> list[dict[str, str]]:
    """`per_source` problems of each source, shuffled. None has the words of one in `seen`, in whatever order: not the
    same numbers the other way round, nor the same options under other letters. `seen` is added to."""
    rng = np.random.default_rng([seed, 6])
    rows: list[dict[str, str]] = []
    for source, make in SOURCES.items():
        wanted = len(rows) + per_source
        while len(rows) < wanted:
            level, asked, answer = make(rng)
            if (words := tuple(sorted(asked.split()))) not in seen:
                seen.add(words)
                problem = f"{WORKED[source]}\n\nQuestion: {asked}"
                rows.append(
                    {"problem": problem, "answer": answer, "source": source, "level": level, "subject": "mixed"}
                )
    return [rows[i] for i in rng.permutation(len(rows))]


def write_builtin(folder: Path) -> None:
    """Write train.jsonl (120) and heldout.jsonl (48), which share no problem."""
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[tuple[str, ...]] = set()
    for name, per_source, seed in (("train", 40, 31), ("heldout", 16, 32)):
        text = "".join(json.dumps(row) + "\n" for row in build(per_source, seed, seen))
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8", newline="\n")
