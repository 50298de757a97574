"""The pretrained model on graded arithmetic that it works out in steps, after worked examples in several styles.

What a language model does where it reasons in writing: completions of some tens of tokens, in several right forms, a
part of which never come to an end. The scratchpad world is measured against it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.curriculum.worlds.arithmetic import SIZES, Grades, Maker, asked, graded_examples, graded_pool
from benchmarks.curriculum.worlds.arithmetic import WORLD as ARITHMETIC
from benchmarks.curriculum.worlds.world import Pool, Sizes
from cures_core.config.rollout import HfRolloutConfig, PromptFormat
from cures_core.prompts import PromptSet

TEMPLATE = """\
Question: What is 6 + 3 - 2?
Answer: First, 6 + 3 = 9. Then 9 - 2 = 7. The answer is 7.

Question: Compute 2 + 5 + 1.
Answer: 2 plus 5 is 7, and 7 plus 1 is 8. The answer is 8.

Question: Work out 3 * 4 + 5.
Answer: 3 * 4 = 12. 12 + 5 = 17. The answer is 17.

Question: How much is 4 + 4?
Answer: 4 + 4 = 8. The answer is 8.

Question: What is 9 - 4 + 8 - 1?
Answer: 9 - 4 = 5, then 5 + 8 = 13, so 13 - 1 = 12. The answer is 12.

Question: {problem}
Answer:"""


def _chain(steps: int, low: int, high: int, operators: str = "+-") -> Maker:
    """Sums and differences of numbers from `low` to `high`; no value on the way is negative."""

    def make(rng: np.random.Generator) -> tuple[str, int]:
        value = int(rng.integers(low, high + 1))
        text = str(value)
        for _ in range(steps):
            number = int(rng.integers(low, high + 1))
            operator = "+" if number > value else str(rng.choice(list(operators)))
            value = value + number if operator == "+" else value - number
            text += f" {operator} {number}"
        return asked(text, rng), value

    return make


def _product(low: int, high: int, *, plus: bool = False) -> Maker:
    """Of two numbers from `low` to `high`, with a third added where `plus` is set."""

    def make(rng: np.random.Generator) -> tuple[str, int]:
        a, b, c = (int(number) for number in rng.integers(low, high + 1, 3))
        return asked(f"{a} * {b} + {c}" if plus else f"{a} * {b}", rng), a * b + (c if plus else 0)

    return make


GRADES = Grades(
    easy={"sum2": _chain(1, 1, 12, "+"), "product2": _product(2, 7)},
    frontier={
        "chain2": _chain(1, 13, 40),
        "product2-large": _product(8, 15),
        "chain3": _chain(2, 1, 12),
        "product-sum": _product(2, 6, plus=True),
    },
    dead={"chain5": _chain(4, 10, 60)},
)
"""Sums, differences and products of one step to four."""


def make_pool(name: str, seed: int, sizes: Sizes = SIZES) -> Pool:
    """As `graded_pool`, of this world's kinds."""
    return graded_pool(GRADES, name, seed, sizes)


def examples(num: int, seed: int) -> PromptSet:
    """`num` problems of every kind; `level` is the kind."""
    return graded_examples(GRADES, num, seed)


WORLD = replace(
    ARITHMETIC,
    name="smollm2-worked",
    make_pool=make_pool,
    examples=examples,
    rollout=HfRolloutConfig(
        max_new_tokens=64, batch_rows=512, prompt_format=PromptFormat(template=TEMPLATE, stop=("\n",))
    ),
)
