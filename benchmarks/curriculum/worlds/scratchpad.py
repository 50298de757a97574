"""The scratchpad world: short calculations in one or two labelled parts, worked out in a style of the policy's choice.

`a7+5>1b4*8-6=`: each part is worked from left to right, modulo 10 (+ - * > larger, < smaller, | absolute difference);
the answer is the parts' last values in order of label, here 26, after a `~` at the end. What is written before is not
looked at. Three tutors of different style show how: terse, worked and verbose; each has many words for the same thing,
of one letter, since a token is a character. Where a tutor errs, it takes one operator for another and carries on, or
loses the thread and writes at random until it stops without an answer: much of what a pretrained model at temperature 1
gets wrong is of that kind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.curriculum.base_policies import warm_started
from benchmarks.curriculum.worlds.world import Pool, Sizes, World
from cures_core.config.policy import WarmStartPolicy
from cures_core.config.rewards import CustomConfig
from cures_core.config.rollout import HfRolloutConfig
from cures_core.policy.warm_start import Demonstrate, Lesson
from cures_core.prompts import PromptSet, make_prompt
from cures_core.terms import Prompt

PoolName = Literal["waste", "mixed", "healthy"]
# Shares of (solved from the start, worth learning, the same but mislabelled, hopeless).
SHARES: dict[PoolName, tuple[float, float, float, float]] = {
    "waste": (0.60, 0.15, 0.05, 0.20),
    "mixed": (0.40, 0.40, 0.05, 0.15),
    "healthy": (0.10, 0.85, 0.05, 0.0),
}

OPERATORS = "+-*><|"
EQUALS, BETWEEN, MARK = "=eigmyrz", "ABCDEFGHIJKLMNOPQRST", "~"
"""Words for "is", and for "and then", "next", "in short" and the like."""
SYMBOLS = "0123456789" + OPERATORS + EQUALS + "ab" + BETWEEN + MARK

_CONFUSED = dict(zip(OPERATORS, "-++<>+", strict=True))  # what a tutor takes each operator for
_ERROR_RATES = np.array([0.001, 0.002, 0.10, 0.30, 0.60, 0.985])
_LOST = 0.75  # share of the errors that end in losing the thread, with this many symbols written at random
_RAMBLED = (12, 56)

LEVELS: dict[str, tuple[dict[str, float], int]] = {
    "solved": ({"+": 0.5, "-": 0.5}, 1),
    "times1": ({"*": 0.7, "+": 0.3}, 1),
    "times2": ({"*": 0.6, "+": 0.2, "-": 0.2}, 2),
    "max1": ({">": 0.7, "+": 0.3}, 1),
    "max2": ({">": 0.6, "+": 0.2, "-": 0.2}, 2),
    "min1": ({"<": 0.7, "+": 0.3}, 1),
    "min2": ({"<": 0.5, "+": 0.3, "-": 0.2}, 2),
    "gap2": ({"|": 1.0}, 2),
}
"""Shares of the operators, and number of parts."""
HARD = "*><|"
SOLVED, FRONTIER, HOPELESS = ("solved",), ("times2", "max1", "max2", "min1", "min2"), ("gap2",)


@dataclass(frozen=True)
class Part:
    """A start digit and the operations on it, (operator, digit)."""

    start: int
    steps: tuple[tuple[str, int], ...]

    def value(self) -> int:
        value = self.start
        for operator, digit in self.steps:
            value = apply(operator, value, digit)
        return value


@dataclass(frozen=True)
class Style:
    """How a tutor writes."""

    share: float
    """Of the demonstrations."""
    shift: float
    """Of its error rates, in logit."""
    restarts: bool
    """Writes the running value anew in front of every operation; else it goes on from where it stands."""
    words: int
    """Between two steps, parts and before the answer."""


STYLES: dict[str, Style] = {
    "terse": Style(0.25, 0.4, restarts=False, words=2),
    "worked": Style(0.45, -0.3, restarts=True, words=2),
    "verbose": Style(0.30, 0.0, restarts=True, words=3),
}


def apply(operator: str, value: int, digit: int) -> int:
    """One operation, modulo 10."""
    plain = {"+": value + digit, "-": value - digit, "*": value * digit, ">": max(value, digit), "<": min(value, digit)}
    return plain.get(operator, abs(value - digit)) % 10


def is_correct(completion: str, answer: str) -> bool:
    """Is what stands after the last `~` the answer? The verifier of this world, as own function."""
    _, mark, said = completion.rpartition(MARK)
    return bool(mark) and said.strip() == answer


def problem_of(parts: Sequence[Part]) -> str:
    texts = (f"{part.start}" + "".join(f"{o}{d}" for o, d in part.steps) for part in parts)
    return "".join(label + text for label, text in zip("ab", texts, strict=False)) + "="


def draw_parts(operators: dict[str, float], num: int, rng: np.random.Generator) -> list[Part]:
    """`num` parts of two operations each; no operand is 0 for |, where it and + agree: luck, not skill."""
    names, weights = list(operators), np.array(list(operators.values()))

    def step() -> tuple[str, int]:
        operator = str(rng.choice(names, p=weights))
        return operator, int(rng.integers(int(operator == "|"), 10))

    return [Part(int(rng.integers(10)), (step(), step())) for _ in range(num)]


class Tutors:
    """Three ways to work a problem, each with its own table of error rates by operator and digit, (6, 10)."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0x5455544F])
        base = np.log(_ERROR_RATES / (1 - _ERROR_RATES))[:, None] + 0.5 * rng.standard_normal((6, 10))
        own = {name: base + 0.3 * rng.standard_normal((6, 10)) + style.shift for name, style in STYLES.items()}
        self.error_rates = {name: 1 / (1 + np.exp(-logits)) for name, logits in own.items()}

    def demonstrate(self, rng: np.random.Generator, num: int) -> list[tuple[str, str]]:
        """(problem, completion) pairs: operators cluster around a topic; two thirds of the problems have two parts."""
        pairs = []
        for _ in range(num):
            topic = OPERATORS[int(rng.integers(6))]
            weights = {"+": 0.2, "-": 0.2}
            weights[topic] = weights.get(topic, 0.0) + 0.6
            parts = draw_parts(weights, int(rng.choice([1, 2, 2])), rng)
            pairs.append((problem_of(parts), self.completion(parts, rng)))
        return pairs

    def completion(self, parts: Sequence[Part], rng: np.random.Generator, name: str = "") -> str:
        """One tutor's completion; `name` says whose, by default it is drawn."""
        name = name or str(rng.choice(list(STYLES), p=[style.share for style in STYLES.values()]))
        order = list(range(len(parts)))
        if rng.random() < 0.3:
            order.reverse()
        text, values = "", {}
        for i in order:
            part, value = self._part("ab"[i], parts[i], name, rng)
            text += part
            if value is None:
                return text + _drawn(SYMBOLS.replace(MARK, ""), int(rng.integers(*_RAMBLED)), rng)
            text += _drawn(BETWEEN, STYLES[name].words, rng)
            values[i] = value
        text += "".join(f"{'ab'[i]}{_drawn(EQUALS, 1, rng)}{values[i]}" for i in order)
        return text + MARK + "".join(str(values[i]) for i in range(len(parts)))

    def _part(self, label: str, part: Part, name: str, rng: np.random.Generator) -> tuple[str, int | None]:
        """What is written, and the last value; None where the thread is lost."""
        style, rates = STYLES[name], self.error_rates[name]
        value, text = part.start, f"{label}{part.start}"
        for i, (operator, digit) in enumerate(part.steps):
            if i and style.restarts:
                text += _drawn(BETWEEN, style.words, rng) + str(value)
            text += f"{operator}{digit}{_drawn(EQUALS, 1, rng)}"
            errs = rng.random() < rates[OPERATORS.index(operator), digit]
            if errs and rng.random() < _LOST:
                return text, None
            value = apply(_CONFUSED[operator] if errs else operator, value, digit)
            text += str(value)
        return text, value


def _drawn(symbols: str, num: int, rng: np.random.Generator) -> str:
    return "".join(symbols[i] for i in rng.integers(len(symbols), size=num))


def _tutor(seed: int) -> Demonstrate:
    return Tutors(seed).demonstrate


LESSON = Lesson(_tutor, SYMBOLS, positions=128, initial_deviation=0.08, cut=8)
"""Initial weights of deviation 0.08, with which copying is learnt several times sooner than with GPT-2's 0.02."""
POLICY = WarmStartPolicy(steps=4000, batch=16, learning_rate=2.5e-3, checkpoint_every=1000)
SIZES = Sizes(train=1600, heldout=200, frontier=160)


def held_out(problem: str) -> bool:
    """A quarter of all problems, by their text, is never trained on."""
    return hashlib.sha256(problem.encode()).digest()[0] < 64


def draw_prompts(
    levels: Sequence[str], num: int, held: bool, rng: np.random.Generator, seen: set[str], *, wrong: bool = False
) -> list[Prompt]:
    """`num` problems not in `seen` that are held out, or are not, of the levels in turn; `wrong`: with a wrong answer.

    A level that has no more is passed over. Raises `ValueError` where all of them together have too few.
    """
    found: list[Prompt] = []
    misses = 0
    while len(found) < num:
        level = levels[(len(found) + misses) % len(levels)]
        parts = draw_parts(*LEVELS[level], rng)
        problem = problem_of(parts)
        easier = level not in SOLVED and not set(problem) & set(HARD)  # one of nothing but sums
        if easier or problem in seen or held_out(problem) is not held:
            misses += 1
            if misses > 200 * num + 1000:
                raise ValueError(f"levels {', '.join(levels)} have fewer than {num} problems")
            continue
        seen.add(problem)
        answer = "".join(str(part.value()) for part in parts)
        if wrong:
            answer = answer[:-1] + str((int(answer[-1]) + 5) % 10)
        found.append(make_prompt(problem, answer, source=level[:-1] if level[-1].isdigit() else level, level=level))
    return found


def make_pool(name: str, seed: int, sizes: Sizes) -> Pool:
    """Pool `name`; other seeds give other prompts of the same mixture, held-out ones are the same for all seeds."""
    shares = SHARES[name]  # type: ignore[index]
    solved, frontier, wrong, hopeless = (round(share * sizes.train) for share in shares)
    rng, seen = np.random.default_rng([seed, 0x504F4F4C]), set[str]()
    train = [
        *draw_prompts(FRONTIER, wrong, False, rng, seen, wrong=True),
        *draw_prompts(FRONTIER, frontier, False, rng, seen),
        *draw_prompts(HOPELESS, hopeless, False, rng, seen),
        *draw_prompts(SOLVED, solved, False, rng, seen),
    ]
    kinds = ((SOLVED, shares[0]), (FRONTIER, shares[1] + shares[2]), (HOPELESS, shares[3]))
    mixture = [p for levels, share in kinds for p in _held(levels, round(share * sizes.heldout))]
    return Pool(PromptSet.of(train), PromptSet.of(mixture), PromptSet.of(_held(FRONTIER, sizes.frontier)))


def _held(levels: Sequence[str], num: int) -> list[Prompt]:
    return draw_prompts(levels, num, True, np.random.default_rng(0x48454C44), set())


def examples(num: int, seed: int) -> PromptSet:
    """`num` held-out problems of every level."""
    rng, seen = np.random.default_rng([seed, 0x4558414D]), set[str]()
    return PromptSet.of([p for level in LEVELS for p in draw_prompts([level], num, True, rng, seen)])


def base_policy(seed: int) -> Path:
    """A policy of 0.36 million weights from a warm start of this seed: other initial weights, tutors and problems."""
    return warm_started("scratchpad", POLICY.model_copy(update={"seed": seed}), LESSON)


WORLD = World(
    name="scratchpad",
    pools=tuple(SHARES),
    sizes=SIZES,
    make_pool=make_pool,
    examples=examples,
    base_policy=base_policy,
    bases=(1, 2, 3),
    tuning_base=0,
    rollout=HfRolloutConfig(max_new_tokens=56),
    reward=CustomConfig(function=f"{__name__}:is_correct"),
    learning_rate=1e-3,
    small_steps=0.5,
    length_norm=32.0,
)
