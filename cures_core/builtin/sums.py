"""The built-in prompts for small pretrained models: products, sums and one-step word sums, generated from a seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

NAMES = ("Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Gwen", "Hugo")
THINGS = ("apples", "books", "coins", "eggs", "pens", "shells", "stamps", "stones")


def _product(rng: np.random.Generator) -> tuple[str, int]:
    a, b = rng.integers(2, 13, 2).tolist()
    return f"What is {a} times {b}?", a * b


def _sum(rng: np.random.Generator) -> tuple[str, int]:
    a, b = rng.integers(2, 51, 2).tolist()
    return f"What is {a} plus {b}?", a + b


def _word_sum(rng: np.random.Generator) -> tuple[str, int]:
    a, b = rng.integers(2, 31, 2).tolist()
    name, thing = NAMES[rng.integers(len(NAMES))], THINGS[rng.integers(len(THINGS))]
    return f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?", a + b


KINDS: dict[str, Callable[[np.random.Generator], tuple[str, int]]] = {
    "product": _product,
    "sum": _sum,
    "word-sum": _word_sum,
}


def build(per_kind: int, seed: int, seen: set[str]) -> list[dict[str, str]]:
    """`per_kind` problems of each kind, none of them in `seen`, which is added to; shuffled."""
    rng = np.random.default_rng([seed, 4])
    rows: list[dict[str, str]] = []
    for kind, make in KINDS.items():
        wanted = len(rows) + per_kind
        while len(rows) < wanted:
            problem, answer = make(rng)
            if problem not in seen:
                seen.add(problem)
                rows.append({"problem": problem, "answer": str(answer), "source": kind, "level": "", "subject": "sums"})
    return [rows[i] for i in rng.permutation(len(rows))]


def write_builtin(folder: Path) -> None:
    """Write train.jsonl (120) and heldout.jsonl (60), which share no problem."""
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    for name, per_kind, seed in (("train", 40, 21), ("heldout", 20, 22)):
        text = "".join(json.dumps(row) + "\n" for row in build(per_kind, seed, seen))
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8", newline="\n")
