"""The pools of the curriculum benchmark: the built-in task with different shares of solved and hopeless prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cures_core.builtin.chains import build_pool, build_suite
from cures_core.prompts import PromptSet, make_prompt

PoolName = Literal["waste", "unlabelled", "hopeless", "hard", "mixed", "easy"]
POOLS: tuple[PoolName, ...] = ("waste", "unlabelled", "hopeless", "hard", "mixed", "easy")


@dataclass(frozen=True)
class Pool:
    """Training prompts; a held-out suite of the same mixture, rightly labelled; and one of frontier prompts alone."""

    train: PromptSet
    heldout: PromptSet
    frontier: PromptSet


# (share solved from the start, share mislabelled); the rest is worth training on.
SHARES: dict[PoolName, tuple[float, float]] = {
    "waste": (0.85, 0.05),
    "unlabelled": (0.85, 0.05),
    "hopeless": (0.15, 0.65),
    "hard": (0.0, 0.0),
    "mixed": (0.35, 0.0),
    "easy": (0.95, 0.0),
}


def make_pool(name: PoolName, seed: int, num: int = 1600, num_heldout: int = 1000, num_frontier: int = 400) -> Pool:
    """Pool `name`; other seeds give other prompts of the same mixture.

    `unlabelled` is `waste` without source, level and subject, so that nothing but its own rollouts tells a prompt.
    """
    easy, hopeless = SHARES[name]
    frontier = (1 - easy - hopeless) / max(1e-9, 1 - hopeless)
    return Pool(
        _prompts(build_pool(num, seed, easy=easy, hopeless=hopeless), labels=name != "unlabelled"),
        _prompts(build_suite(num_heldout, seed + 1, frontier=frontier)),
        _prompts(build_suite(num_frontier, seed + 2, frontier=1.0)),
    )


def _prompts(rows: Sequence[dict[str, str]], labels: bool = True) -> PromptSet:
    names = ("source", "level", "subject") if labels else ()
    return PromptSet.of(make_prompt(r["problem"], r["answer"], *(r[n] for n in names)) for r in rows)
