"""The scratchpad world: short calculations in one or two labelled parts, worked out in words of the policy's choice.

`a7+5>1b4*8-6=`: each part is worked from left to right, modulo 10 (+ - * > larger, < smaller, | absolute difference);
the answer is the parts' last values in order of label, here 26, after a `#` at the end. What is written before is not
looked at:

    terse      b: 4*8-6=6. And part a: 7+5>1 equals 2 => #26
    worked     a) 7+5 is 2, so 2>1 gives 2. Next b) 4 times 8=2; 2-6=6. So #26
    verbose    First a: 7 plus 5 makes 2, then 2 max 1 is 2. Also b: 4*8=2, so 2 minus 6=6. In short a=2, b=6, thus #26
    doubting   a: 7+5 is 2. Wait, 7+5=2, so 2>1 gives 3. Hmm, 2>1 is 2. Next b: ...

Four tutors of different style show how. Each has its own order of the parts, words and notation; one skips the steps
between; each errs at rates of its own, taking one operator for another and carrying on; and where it is unsure it works
a step again, some without end, so that completions are cut. All freedom is of such kinds: no token is there for its
entropy alone. A token is a character or a word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.curriculum.base_policies import warm_started
from benchmarks.curriculum.worlds.world import Pool, Sizes, World
from cures_core.config.policy import WarmStartPolicy
from cures_core.config.rewards import CustomConfig
from cures_core.config.rollout import HfRolloutConfig
from cures_core.policy.warm_start import Demonstrate, Lesson
from cures_core.prompts import PromptSet, make_prompt
from cures_core.terms import Prompt

Floats = npt.NDArray[np.float64]
PoolName = Literal["waste", "mixed", "healthy", "hopeless"]
# Shares of (solved from the start, worth learning, the same but mislabelled, out of reach at first).
SHARES: dict[PoolName, tuple[float, float, float, float]] = {
    "waste": (0.60, 0.15, 0.05, 0.20),
    "mixed": (0.40, 0.40, 0.05, 0.15),
    "healthy": (0.10, 0.85, 0.05, 0.0),
    "hopeless": (0.15, 0.15, 0.55, 0.15),
}

OPERATORS, MARK = "+-*><|", "#"
SYMBOLS = "0123456789" + OPERATORS + "=ab" + MARK
_SAID = dict(
    zip(
        OPERATORS,
        (
            " plus ",
            " minus ",
            " times ",
            " max ",
            " min ",
            " apart ",
        ),
        strict=True,
    )
)
FORMS: dict[str, tuple[str, ...]] = {
    "opening": ("", "First ", "Let us see. ", "OK, ", "We start with ", "To begin, "),
    "label a": ("a: ", "a) ", "(a) ", "part a: "),
    "label b": ("b: ", "b) ", "(b) ", "part b: "),
    "equals": ("=", " is ", " gives ", " makes ", " equals ", " -> ", " comes to ", " yields "),
    "then": (
        ", ", "; ", ", then ", ", so ", ", next ", ", which means ", ", and ", ". Then ", ". Now ", ", hence ",
    ),
    "between": (". ", ". Next ", ". And ", " & ", ". Also ", ". As for ", " / "),
    "doubt": (". Wait, ", ". Hmm, ", "? Again, ", ". No, ", ". Let us check: ", ". Once more: "),
    "recap": (". In short ", ". Altogether ", " -- ", ". We have "),
    "end": (" => ", ". So ", ". Answer: ", ", thus ", ". The answer is ", ". Therefore "),
}  # fmt: skip
"""Ways to say the same thing; each is one token."""
WORDS = tuple(
    word
    for word in dict.fromkeys([*_SAID.values(), *(word for forms in FORMS.values() for word in forms)])
    if len(word) > 1
)

_CONFUSED = dict(zip(OPERATORS, "-++<>+", strict=True))  # what a tutor takes each operator for
_ERROR_RATES = np.array([0.001, 0.002, 0.10, 0.30, 0.60, 0.93])
_MOST_DOUBTS = 10  # in one completion, which has to fit the model

LEVELS: dict[str, tuple[dict[str, float], int]] = {
    "solved": ({"+": 0.5, "-": 0.5}, 1),
    "times1": ({"*": 0.7, "+": 0.3}, 1),
    "times2": ({"*": 0.6, "+": 0.2, "-": 0.2}, 2),
    "max1": ({">": 0.7, "+": 0.3}, 1),
    "max2": ({">": 0.6, "+": 0.2, "-": 0.2}, 2),
    "min1": ({"<": 0.7, "+": 0.3}, 1),
    "min2": ({"<": 0.5, "+": 0.3, "-": 0.2}, 2),
    "gap2": ({"|": 0.6, "+": 0.4}, 2),
}
"""Shares of the operators, and number of parts."""
HARD = "*><|"
SOLVED, FRONTIER, REMOTE = ("solved",), ("times2", "max1", "max2", "min1", "min2"), ("gap2",)


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
    """Of the demonstrations, about: base policies differ in it."""
    shift: float
    """Of its error rates, in logit."""
    said: float
    """Share of the operators that are written as words."""
    doubt: float
    """Share of its errors, and a tenth of its other steps, after which it works the step again."""
    persists: float
    """Share of the repeated steps that are repeated once more."""
    skips: bool = False
    """Writes only a part's last value."""
    talks: bool = False
    """Opens with a phrase, and sums up before the answer."""


STYLES: dict[str, Style] = {
    "terse": Style(0.15, 0.2, said=0.1, doubt=0.0, persists=0.0, skips=True),
    "worked": Style(0.40, -0.3, said=0.3, doubt=0.05, persists=0.3),
    "verbose": Style(0.25, 0.0, said=0.6, doubt=0.1, persists=0.3, talks=True),
    "doubting": Style(0.20, 0.3, said=0.4, doubt=0.7, persists=0.9),
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
    """Four ways to work a problem, each with error rates by operator and digit, (6, 10), and habits of its own."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0x5455544F])
        base = np.log(_ERROR_RATES / (1 - _ERROR_RATES))[:, None] + 0.5 * rng.standard_normal((6, 10))
        own = {name: base + 0.3 * rng.standard_normal((6, 10)) + style.shift for name, style in STYLES.items()}
        self.error_rates = {name: 1 / (1 + np.exp(-logits)) for name, logits in own.items()}
        shares = np.array([style.share for style in STYLES.values()]) * np.exp(0.2 * rng.standard_normal(len(STYLES)))
        self._shares = shares / shares.sum()
        self._habits = {(name, kind): _weights(len(forms), rng) for name in STYLES for kind, forms in FORMS.items()}

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
        name = name or str(rng.choice(list(STYLES), p=self._shares))
        order = list(range(len(parts)))
        if rng.random() < 0.3:
            order.reverse()
        return _Writing(STYLES[name], self.error_rates[name], partial(self._word, name), rng).write(parts, order)

    def _word(self, name: str, kind: str, rng: np.random.Generator) -> str:
        return FORMS[kind][int(np.searchsorted(self._habits[name, kind], rng.random()))]


def _weights(num: int, rng: np.random.Generator) -> Floats:
    """Cumulated shares of `num` forms, none of them rare."""
    weights = np.exp(0.5 * rng.standard_normal(num))
    found: Floats = np.cumsum(weights / weights.sum())
    found[-1] = 1.0
    return found


class _Writing:
    """One completion, as it is written from left to right."""

    def __init__(
        self, style: Style, rates: Floats, word: Callable[[str, np.random.Generator], str], rng: np.random.Generator
    ) -> None:
        self._style, self._rates, self._rng = style, rates, rng
        self._draw = word
        self._doubts = _MOST_DOUBTS

    def write(self, parts: Sequence[Part], order: Sequence[int]) -> str:
        text, values = self._word("opening") if self._style.talks else "", {}
        for place, i in enumerate(order):
            text += self._word("between") if place else ""
            work = self._skipped if self._style.skips else self._worked
            part, values[i] = work(parts[i])
            text += self._word(f"label {'ab'[i]}") + part
        if self._style.talks:
            text += self._word("recap") + ", ".join(f"{'ab'[i]}={values[i]}" for i in order)
        return text + self._word("end") + MARK + "".join(str(values[i]) for i in range(len(parts)))

    def _worked(self, part: Part) -> tuple[str, int]:
        """What is written, and the last value: every step with its result, some of them again."""
        value, text = part.start, ""
        for place, (operator, digit) in enumerate(part.steps):
            text += self._word("then") if place else ""
            result, errs = self._result(value, operator, digit)
            text += self._step(value, operator, digit, result)
            again = self._style.doubt * (1.0 if errs else 0.1)
            while self._doubts and self._rng.random() < again:
                self._doubts, again = self._doubts - 1, self._style.persists
                result, _ = self._result(value, operator, digit)
                text += self._word("doubt") + self._step(value, operator, digit, result)
            value = result
        return text, value

    def _skipped(self, part: Part) -> tuple[str, int]:
        value, text = part.start, str(part.start)
        for operator, digit in part.steps:
            text += f"{self._operator(operator)}{digit}"
            value, _ = self._result(value, operator, digit)
        return f"{text}{self._word('equals')}{value}", value

    def _step(self, value: int, operator: str, digit: int, result: int) -> str:
        return f"{value}{self._operator(operator)}{digit}{self._word('equals')}{result}"

    def _result(self, value: int, operator: str, digit: int) -> tuple[int, bool]:
        """The value that is written, and whether the tutor erred."""
        errs = bool(self._rng.random() < self._rates[OPERATORS.index(operator), digit])
        return apply(_CONFUSED[operator] if errs else operator, value, digit), errs

    def _operator(self, operator: str) -> str:
        return _SAID[operator] if self._rng.random() < self._style.said else operator

    def _word(self, kind: str) -> str:
        return self._draw(kind, self._rng)


def _tutor(seed: int) -> Demonstrate:
    return Tutors(seed).demonstrate


LESSON = Lesson(_tutor, SYMBOLS, words=WORDS, positions=128, initial_deviation=0.08)
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
    solved, frontier, wrong, remote = (round(share * sizes.train) for share in shares)
    rng, seen = np.random.default_rng([seed, 0x504F4F4C]), set[str]()
    train = [
        *draw_prompts(FRONTIER, wrong, False, rng, seen, wrong=True),
        *draw_prompts(FRONTIER, frontier, False, rng, seen),
        *draw_prompts(REMOTE, remote, False, rng, seen),
        *draw_prompts(SOLVED, solved, False, rng, seen),
    ]
    unsolved = ((FRONTIER, shares[1] + shares[2]), (REMOTE, shares[3]))
    mixture = _mixture(((SOLVED, shares[0]), *unsolved), sizes.heldout)
    return Pool(PromptSet.of(train), mixture, _mixture(unsolved, sizes.frontier))


def _mixture(kinds: Sequence[tuple[Sequence[str], float]], num: int) -> PromptSet:
    """Held-out problems of these levels, by their shares."""
    whole = sum(share for _, share in kinds)
    return PromptSet.of([p for levels, share in kinds for p in _held(levels, round(share / whole * num))])


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
    rollout=HfRolloutConfig(max_new_tokens=60),
    reward=CustomConfig(function=f"{__name__}:is_correct"),
    learning_rate=1e-3,
    small_steps=0.5,
    length_norm=32.0,
)
