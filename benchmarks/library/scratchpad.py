"""The scratchpad world: short calculations in one or two labelled parts, worked in a style of the policy's own choice.

`a7+5>1b4*8-6=`: each part is worked from left to right, modulo 10 (+ - * > larger, < smaller, | absolute difference);
the answer is the parts' last values in order of label, here 26, after a `~` at the end. What is written before is not
looked at. Three tutors show how: terse, worked and verbose. They err by confusion, taking one operator for another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

OPERATORS = "+-*><|"
SYMBOLS = "".join(dict.fromkeys("0123456789+-*><|=ab,.; iso:~"))
LONGEST = 72
"""Tokens of a completion at most; the tutors' longest takes 60."""

_CONFUSED = "-++<>+"  # what a tutor takes each operator for
_ERROR_RATES = np.array([0.001, 0.002, 0.10, 0.30, 0.60, 0.985])
_STYLES = {"terse": (0.20, 0.4), "worked": (0.45, -0.3), "verbose": (0.35, 0.0)}
"""Share of the demonstrations, and shift of the error rates in logit."""

LEVELS: dict[str, tuple[dict[str, float], int]] = {
    "solved1": ({"+": 0.5, "-": 0.5}, 1),
    "times2": ({"*": 0.6, "+": 0.2, "-": 0.2}, 2),
    "max1": ({">": 0.7, "+": 0.3}, 1),
    "max2": ({">": 0.6, "+": 0.2, "-": 0.2}, 2),
    "min1": ({"<": 0.7, "+": 0.3}, 1),
    "min2": ({"<": 0.5, "+": 0.3, "-": 0.2}, 2),
    "mix2": ({"*": 0.3, ">": 0.2, "<": 0.1, "+": 0.2, "-": 0.2}, 2),
    "gap2": ({"|": 1.0}, 2),
}
FRONTIER = ("times2", "max1", "max2", "min1", "min2", "mix2")


@dataclass(frozen=True)
class Part:
    """A start digit and two operations on it."""

    start: int
    steps: tuple[tuple[str, int], ...]

    def value(self) -> int:
        value = self.start
        for operator, digit in self.steps:
            value = apply(operator, value, digit)
        return value


@dataclass(frozen=True)
class Item:
    """A row of a pool: problem, gold answer, its level; mislabelled ones have a wrong answer."""

    problem: str
    answer: str
    level: str


def apply(operator: str, value: int, digit: int) -> int:
    """One operation, modulo 10."""
    plain = {"+": value + digit, "-": value - digit, "*": value * digit, ">": max(value, digit), "<": min(value, digit)}
    return plain.get(operator, abs(value - digit)) % 10


def is_correct(completion: str, answer: str) -> bool:
    """Whether what stands after the last `~` is the answer."""
    return completion.rpartition("~")[1] == "~" and completion.rpartition("~")[2].strip() == answer


def problem_of(parts: Sequence[Part]) -> str:
    texts = (f"{part.start}" + "".join(f"{o}{d}" for o, d in part.steps) for part in parts)
    return "".join(label + text for label, text in zip("ab", texts, strict=False)) + "="


def draw_parts(operators: dict[str, float], num: int, rng: np.random.Generator) -> list[Part]:
    names, weights = list(operators), np.array(list(operators.values()))
    lowest = int(set(names) == {"|"})  # with operand 0, | and + agree: luck, not skill

    def step() -> tuple[str, int]:
        return str(rng.choice(names, p=weights)), int(rng.integers(lowest, 10))

    return [Part(int(rng.integers(10)), (step(), step())) for _ in range(num)]


class Tutors:
    """Three ways to work a problem, each with its own table of error rates by operator and digit."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0x5455544F])
        base = np.log(_ERROR_RATES / (1 - _ERROR_RATES))[:, None] + 0.5 * rng.standard_normal((6, 10))
        self._errors = {
            style: 1 / (1 + np.exp(-(base + 0.3 * rng.standard_normal((6, 10)) + shift)))
            for style, (_, shift) in _STYLES.items()
        }

    def demonstration(self, rng: np.random.Generator) -> tuple[str, str]:
        """(problem, completion): operators cluster around a topic; two thirds of the problems have two parts."""
        topic = OPERATORS[int(rng.integers(6))]
        weights = {"+": 0.2, "-": 0.2}
        weights[topic] = weights.get(topic, 0.0) + 0.6
        parts = draw_parts(weights, int(rng.choice([1, 2, 2])), rng)
        return problem_of(parts), self.completion(parts, rng)

    def completion(self, parts: Sequence[Part], rng: np.random.Generator) -> str:
        style = str(rng.choice(list(_STYLES), p=[share for share, _ in _STYLES.values()]))
        order = list(range(len(parts)))
        if rng.random() < 0.3:
            order.reverse()
        texts, values = {}, {}
        for i in order:
            texts[i], values[i] = self._part("ab"[i], parts[i], style, rng)
        between = {"terse": [""], "worked": [",", " "], "verbose": [". ", "; "]}[style]
        closing = {"terse": ["~"], "worked": ["~", " ~"], "verbose": [" so~", ".~"]}[style]
        body = str(rng.choice(between)).join(texts[i] for i in order)
        return body + str(rng.choice(closing)) + "".join(str(values[i]) for i in range(len(parts)))

    def _part(self, label: str, part: Part, style: str, rng: np.random.Generator) -> tuple[str, int]:
        value, worked = part.start, []
        for operator, digit in part.steps:
            errs = rng.random() < self._errors[style][OPERATORS.index(operator), digit]
            used = _CONFUSED[OPERATORS.index(operator)] if errs else operator
            after = apply(used, value, digit)
            worked.append((value, operator, digit, after))
            value = after
        if style == "terse":
            return f"{label}{part.start}" + "".join(f"{o}{d}{after}" for _, o, d, after in worked), value
        if style == "worked":
            return f"{label}{part.start}" + "".join(f"{o}{d}={after}" for _, o, d, after in worked), value
        says, then = str(rng.choice([" is ", "="])), str(rng.choice([" so ", ", "]))
        return f"{label}: " + then.join(f"{v}{o}{d}{says}{after}" for v, o, d, after in worked), value


def held_out(problem: str) -> bool:
    """A quarter of all problems, by their text."""
    return hashlib.sha256(problem.encode()).digest()[0] < 64


def items(levels: Sequence[str], num: int, held: bool, rng: np.random.Generator, seen: set[str]) -> list[Item]:
    """`num` different problems that are held out, or are not, as equally many of every level as there are."""
    found: list[Item] = []
    for _ in range(200 * num):
        if len(found) == num:
            break
        level = levels[len(found) % len(levels)]
        parts = draw_parts(*LEVELS[level], rng)
        problem = problem_of(parts)
        if problem not in seen and held_out(problem) is held:
            seen.add(problem)
            found.append(Item(problem, "".join(str(part.value()) for part in parts), level))
    return found


def pool(seed: int, num: int = 1600) -> list[Item]:
    """Half of it solved, 30 % worth learning, 15 % hopeless, 5 % with a wrong answer."""
    rng, seen = np.random.default_rng([seed, 0x504F4F4C]), set[str]()
    wrong = [
        Item(item.problem, item.answer[:-1] + str((int(item.answer[-1]) + 5) % 10), item.level)
        for item in items(FRONTIER, num // 20, False, rng, seen)
    ]
    rows = [
        *wrong,
        *items(FRONTIER, num * 3 // 10, False, rng, seen),
        *items(["gap2"], num * 3 // 20, False, rng, seen),
        *items(["solved1"], num // 2, False, rng, seen),
    ]
    return [rows[i] for i in rng.permutation(len(rows))]
