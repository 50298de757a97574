"""The built-in task: chains of digit operations with a scratchpad, and the fallible tutor a small policy learns from.

A problem is a start digit, k steps (operator, digit) and "=": `7+5>3=`. Its answer is the running value after each
step, modulo 10, from left to right: `23`. Operators: + - * modulo 10, > the larger, < the smaller, | the absolute
difference. The *topic* of a chain is its first operator; later steps repeat it with probability 0.8, else they add or
subtract.

The task behaves like reasoning RL at a size that trains on one CPU core: a policy warm-started on a tutor who errs
often on some operators *can* compute every step but does not do so reliably, and what RL strengthens on one prompt
carries over to others. The pool imitates raw web-scale sets: most prompts are solved already, some have a wrong gold
answer, a tenth is worth training on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

OPERATORS = "+-*><|"
TOPICS = ("plus", "minus", "times", "max", "min", "gap")
SYMBOLS = "0123456789" + OPERATORS + "="
MAX_STEPS = 5
TUTOR_ERROR = (0.003, 0.01, 0.10, 0.60, 0.93, 0.98)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Chains:
    """`num` chains. start (num,), operators and digits (num, MAX_STEPS), steps (num,): k, the used length of a row."""

    start: Ints
    operators: Ints
    digits: Ints
    steps: Ints

    def problem(self, i: int) -> str:
        body = "".join(
            OPERATORS[o] + str(d)
            for o, d in zip(self.operators[i, : self.steps[i]], self.digits[i, : self.steps[i]], strict=True)
        )
        return f"{self.start[i]}{body}="


def apply(value: Ints, operator: Ints, digit: Ints) -> Ints:
    """One step of the task, elementwise."""
    return np.choose(
        operator,
        [
            (value + digit) % 10,
            (value - digit) % 10,
            (value * digit) % 10,
            np.maximum(value, digit),
            np.minimum(value, digit),
            np.abs(value - digit),
        ],
    ).astype(np.int64)


def completion_tokens(problem: str) -> int:
    """Tokens of the completion that the tutor writes: a digit for every operator, and the end token."""
    return sum(problem.count(operator) for operator in OPERATORS) + 1


def draw_chains(rng: np.random.Generator, topics: Ints, steps: Ints) -> Chains:
    """Random chains of the given topics (num,) and lengths (num,)."""
    num = len(topics)
    repeat = rng.random((num, MAX_STEPS)) < 0.8
    repeat[:, 0] = True
    operators = np.where(repeat, topics[:, None], rng.integers(0, 2, (num, MAX_STEPS)))
    return Chains(rng.integers(0, 10, num), operators, rng.integers(0, 10, (num, MAX_STEPS)), steps)


def scratchpads(chains: Chains, wrong: npt.NDArray[np.bool_] | None = None) -> Ints:
    """Running values (num, MAX_STEPS). Where `wrong` (same shape) is set the value is one too high, and carried on."""
    value = chains.start
    columns = []
    for t in range(MAX_STEPS):
        value = apply(value, chains.operators[:, t], chains.digits[:, t])
        if wrong is not None:
            value = np.where(wrong[:, t], (value + 1) % 10, value)
        columns.append(value)
    return np.stack(columns, axis=1)


class Tutor:
    """Writes demonstrations and errs at a fixed rate for every (operator, digit)."""

    def __init__(self, seed: int) -> None:
        noise = np.random.default_rng([seed, 1]).normal(size=(len(OPERATORS), 10))
        base = np.array(TUTOR_ERROR)[:, None]
        self.error_rate = 1.0 / (1.0 + np.exp(-(np.log(base / (1 - base)) + 0.5 * noise)))

    def demonstrate(self, rng: np.random.Generator, num: int) -> tuple[Chains, Ints]:
        """`num` chains of uniform topic and length with the tutor's scratchpads (num, MAX_STEPS)."""
        chains = draw_chains(rng, rng.integers(0, len(OPERATORS), num), rng.integers(1, MAX_STEPS + 1, num))
        wrong = rng.random((num, MAX_STEPS)) < self.error_rate[chains.operators, chains.digits]
        return chains, scratchpads(chains, wrong)


def _easy(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(0, 2)), int(rng.integers(1, 4))


def _frontier(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.choice([2, 3, 4, 5], p=[0.1, 0.2, 0.3, 0.4])), int(rng.integers(1, MAX_STEPS + 1))


def _any(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(0, len(OPERATORS))), int(rng.integers(1, MAX_STEPS + 1))


def _held_out(problem: str) -> bool:
    """A quarter of all chains is never trained on, decided by content, so that sets of any size stay disjoint."""
    return hashlib.sha256(problem.encode()).digest()[0] < 64


def _rows(
    rng: np.random.Generator,
    num: int,
    kind: Callable[[np.random.Generator], tuple[int, int]],
    *,
    held_out: bool,
    seen: set[str],
    mislabelled: bool = False,
) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    while len(rows) < num:
        topic, k = kind(rng)
        chains = draw_chains(rng, np.array([topic]), np.array([k]))
        problem = chains.problem(0)
        if problem in seen or _held_out(problem) is not held_out:
            continue
        seen.add(problem)
        digits = [int(v) for v in scratchpads(chains)[0, :k]]
        if mislabelled:
            digits[-1] = (digits[-1] + 5) % 10
        answer = "".join(map(str, digits))
        rows.append(
            {"problem": problem, "answer": answer, "source": TOPICS[topic], "level": str(k), "subject": "chain"}
        )
    return rows


def build_pool(num: int, seed: int, *, easy: float = 0.85, hopeless: float = 0.05) -> list[dict[str, str]]:
    """A training pool: `easy` solved already, `hopeless` mislabelled, the rest worth training on; shuffled."""
    rng = np.random.default_rng([seed, 2])
    seen: set[str] = set()
    num_hopeless, num_easy = round(num * hopeless), round(num * easy)
    rows = _rows(rng, num - num_easy - num_hopeless, _frontier, held_out=False, seen=seen)
    rows += _rows(rng, num_hopeless, _any, held_out=False, seen=seen, mislabelled=True)
    rows += _rows(rng, num_easy, _easy, held_out=False, seen=seen)
    return [rows[i] for i in rng.permutation(len(rows))]


def build_suite(num: int, seed: int, *, frontier: float) -> list[dict[str, str]]:
    """A held-out suite, correctly labelled, of which the share `frontier` is worth training on."""
    rng = np.random.default_rng([seed, 3])
    seen: set[str] = set()
    rows = _rows(rng, round(num * frontier), _frontier, held_out=True, seen=seen)
    return rows + _rows(rng, num - len(rows), _easy, held_out=True, seen=seen)


def write_builtin(folder: Path) -> None:
    """Write the built-in sets: train.jsonl (1,600), heldout.jsonl (400, as the pool), frontier.jsonl (400)."""
    folder.mkdir(parents=True, exist_ok=True)
    sets = {
        "train": build_pool(1600, seed=11),
        "heldout": build_suite(400, seed=12, frontier=0.105),
        "frontier": build_suite(400, seed=13, frontier=1.0),
    }
    for name, rows in sets.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8", newline="\n")
