"""The world of a pretrained model, SmolLM2: graded arithmetic in words.

Problems that are solved soon, worth learning, wrongly labelled, or out of reach. On a GPU an arm takes minutes, on one
core hours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.curriculum.worlds.world import Pool, Sizes, World
from cures_core.config.rewards import NumericConfig
from cures_core.config.rollout import HfRolloutConfig, PromptFormat
from cures_core.errors import ConfigError
from cures_core.prompts import PromptSet, make_prompt
from cures_core.terms import Prompt

PoolName = Literal["waste", "mixed", "healthy"]
# Shares of (solved soon, worth learning, worth learning but mislabelled, out of reach).
SHARES: dict[PoolName, tuple[float, float, float, float]] = {
    "waste": (0.85, 0.10, 0.05, 0.0),
    "mixed": (0.40, 0.25, 0.05, 0.30),
    "healthy": (0.10, 0.85, 0.0, 0.05),
}
Maker = Callable[[np.random.Generator], tuple[str, int]]

_NAMES = ("Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Gus", "Hana")
_THINGS = ("apples", "coins", "books", "cards", "pens", "shells", "stamps", "nuts")
_ASKED = ("What is {}?", "Compute {}.", "Please answer: {}", "Quick question: {}", "Maths: {}", "Work out {}.",
          "{} = ?", "Calculate {}.", "How much is {}?", "Find {}.")  # fmt: skip
_WRONG = (3, 7, 11)


SIZES = Sizes(train=1600, heldout=280, frontier=280)
MODEL = Path("models/smollm2")


@dataclass(frozen=True)
class Grades:
    """Makers of problems by kind: solved soon, worth learning, out of reach."""

    easy: Mapping[str, Maker]
    frontier: Mapping[str, Maker]
    dead: Mapping[str, Maker]


def graded_pool(grades: Grades, name: str, seed: int, sizes: Sizes) -> Pool:
    """Pool `name`; other seeds give other prompts of the same mixture. `heldout` is worth learning and rightly
    labelled, `frontier` is the same set: for these pools progress there is the only progress. No held-out problem is
    trained on, not in other words either.
    """
    rng = np.random.default_rng(seed)
    seen: set[str] = set()
    heldout = _make(rng, grades.frontier, sizes.frontier, "frontier", seen)
    easy, frontier, mislabelled, dead = (round(share * sizes.train) for share in SHARES[name])  # type: ignore[index]
    prompts = [
        *_make(rng, grades.frontier, frontier, "frontier", seen),
        *_make(rng, grades.frontier, mislabelled, "frontier", seen, wrong=True),
        *_make(rng, grades.dead, dead, "dead", seen),
        *_make(rng, grades.easy, easy, "easy", seen),
    ]
    held = PromptSet.of(heldout)
    return Pool(PromptSet.of(prompts), held, held)


def graded_examples(grades: Grades, num: int, seed: int) -> PromptSet:
    """`num` problems of every kind; `level` is the kind."""
    rng, seen = np.random.default_rng([seed, 0x4558414D]), set[str]()
    kinds = {**grades.easy, **grades.frontier, **grades.dead}
    return PromptSet.of(p for kind, maker in kinds.items() for p in _make(rng, {kind: maker}, num, kind, seen))


def _make(
    rng: np.random.Generator,
    kinds: Mapping[str, Maker],
    num: int,
    level: str,
    seen: set[str],
    *,
    wrong: bool = False,
) -> list[Prompt]:
    """`num` problems whose numbers and answer are not in `seen` (easy ones: whose words), their kinds in turn; a kind
    that has no more is passed over."""
    found: list[Prompt] = []
    names, misses = list(kinds), 0
    while len(found) < num:
        kind = names[(len(found) + misses) % len(names)]
        problem, answer = kinds[kind](rng)
        key = problem if level == "easy" else f"{re.findall('[0-9]+', problem)} {answer}"
        if key in seen:
            misses += 1
            if misses > 200 * num:
                raise ValueError(f"level {level} has fewer than {num} problems")
            continue
        seen.add(key)
        answer += int(rng.choice(_WRONG)) if wrong else 0
        found.append(make_prompt(problem, str(answer), source=kind, level=level))
    return found


def _two(low: int, high: int, other: tuple[int, int] | None = None) -> Callable[[np.random.Generator], tuple[int, int]]:
    def draw(rng: np.random.Generator) -> tuple[int, int]:
        return int(rng.integers(low, high + 1)), int(rng.integers(*(other or (low, high)), endpoint=True))

    return draw


def asked(expression: str, rng: np.random.Generator) -> str:
    """A question for the value, in words drawn by `rng`."""
    return str(rng.choice(_ASKED)).format(expression)


def _sum(low: int, high: int) -> Maker:
    def make(rng: np.random.Generator) -> tuple[str, int]:
        a, b = _two(low, high)(rng)
        return asked(f"{a} + {b}", rng), a + b

    return make


def _difference(low: int, high: int) -> Maker:
    def make(rng: np.random.Generator) -> tuple[str, int]:
        b, a = sorted(_two(low, high)(rng))
        return asked(f"{a} - {b}", rng), a - b

    return make


def _product(low: int, high: int, other: tuple[int, int] | None = None) -> Maker:
    def make(rng: np.random.Generator) -> tuple[str, int]:
        a, b = _two(low, high, other)(rng)
        return asked(f"{a} * {b}", rng), a * b

    return make


def _story(low: int, high: int) -> Maker:
    def make(rng: np.random.Generator) -> tuple[str, int]:
        name, things = rng.choice(_NAMES), rng.choice(_THINGS)
        small, large = sorted(_two(low, high)(rng))
        if rng.random() < 0.5:
            text = f"{name} has {large} {things} and gets {small} more. How many {things} does {name} have now?"
            return text, large + small
        text = f"{name} has {large} {things} and gives {small} away. How many {things} does {name} have left?"
        return text, large - small

    return make


def _two_steps(rng: np.random.Generator) -> tuple[str, int]:
    name, things = rng.choice(_NAMES), rng.choice(_THINGS)
    boxes, each, more = (int(rng.integers(2, high + 1)) for high in (9, 9, 20))
    text = f"{name} buys {boxes} boxes with {each} {things} each and finds {more} more. How many {things} is that?"
    return text, boxes * each + more


EASY: dict[str, Maker] = {"sum1": _sum(1, 9), "difference1": _difference(1, 9), "product1": _product(2, 5)}
FRONTIER: dict[str, Maker] = {
    "sum2": _sum(20, 99),
    "difference2": _difference(11, 99),
    "product1x2": _product(3, 9, (11, 30)),
    "product12": _product(6, 14),
    "story": _story(6, 40),
    "two-steps": _two_steps,
    "sum3": _sum(100, 499),
}
DEAD: dict[str, Maker] = {"product3x3": _product(201, 999), "product2x3": _product(21, 99, (101, 999))}


GRADES = Grades(EASY, FRONTIER, DEAD)


def make_pool(name: str, seed: int, sizes: Sizes = SIZES) -> Pool:
    """As `graded_pool`, of this world's kinds."""
    return graded_pool(GRADES, name, seed, sizes)


def examples(num: int, seed: int) -> PromptSet:
    """`num` problems of every kind; `level` is the kind."""
    return graded_examples(GRADES, num, seed)


def base_policy(_: int) -> Path:
    """The one there is. Raises `ConfigError` where it is not there."""
    if not (MODEL / "config.json").exists():
        raise ConfigError(f"{MODEL}: no model there; get it with: cures model fetch smollm2")
    return MODEL


WORLD = World(
    name="smollm2",
    pools=tuple(SHARES),
    sizes=SIZES,
    make_pool=make_pool,
    examples=examples,
    base_policy=base_policy,
    bases=(0,),
    tuning_base=0,
    rollout=HfRolloutConfig(
        max_new_tokens=14,
        batch_rows=1024,
        prompt_format=PromptFormat(template="Question: {problem}\nAnswer:", stop=("\n",)),
    ),
    reward=NumericConfig(rules=("last",)),
    learning_rate=3e-5,
    small_steps=2 / 3,
    evaluate_every=2560,
    device="cuda",
    dtype="bfloat16",
)
