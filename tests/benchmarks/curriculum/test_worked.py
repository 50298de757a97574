"""Worked arithmetic for the pretrained model: right answers, problems of every grade, judged by the last number."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from benchmarks.curriculum.worlds.arithmetic import SHARES, PoolName
from benchmarks.curriculum.worlds.worked import GRADES, TEMPLATE, WORLD, examples, make_pool
from benchmarks.curriculum.worlds.world import Sizes
from cures_core.rewards import make_verifier
from cures_core.terms import Outcome

KINDS = {**GRADES.easy, **GRADES.frontier, **GRADES.dead}


def right_answer(problem: str) -> int:
    """The reference: products first, then from left to right."""
    product = re.search(r"(\d+) \* (\d+)", problem)
    if product:
        problem = problem.replace(product[0], str(int(product[1]) * int(product[2])))
    signs = ["+", *re.findall(r" ([+-]) ", problem)]
    numbers = map(int, re.findall(r"\d+", problem))
    return sum(n if sign == "+" else -n for sign, n in zip(signs, numbers, strict=True))


def test_examples_are_of_every_kind_and_rightly_answered() -> None:
    found = list(examples(20, 3))
    assert Counter(p.level for p in found) == dict.fromkeys(KINDS, 20)
    assert all(int(p.answer) == right_answer(p.problem) >= 0 for p in found)


@pytest.mark.parametrize("name", list(SHARES))
def test_pools_have_their_size_and_keep_what_is_held_out_apart(name: PoolName) -> None:
    pool = make_pool(name, 7)
    assert len(pool.train) == WORLD.sizes.train
    assert not {p.problem for p in pool.heldout} & {p.problem for p in pool.train}
    wrong = sum(int(p.answer) != right_answer(p.problem) for p in pool.train)
    assert wrong == round(SHARES[name][2] * WORLD.sizes.train)


def test_a_chain_never_goes_below_zero_on_its_way() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        problem, answer = GRADES.dead["chain5"](rng)
        [expression] = re.findall(r"\d+(?: [+-] \d+)+", problem)
        steps = [m.end() for m in re.finditer(r"\d+", expression)]
        assert all(right_answer(expression[:end]) >= 0 for end in steps)
        assert answer == right_answer(problem)


def test_worked_examples_are_right_and_judged_right() -> None:
    shown = re.findall(r"Question: (.*)\nAnswer: (.*)", TEMPLATE)
    assert len(shown) == 5
    with make_verifier(WORLD.reward) as verifier:
        verdicts = verifier.judge_pairs([(text, str(right_answer(problem))) for problem, text in shown])
    assert [v.outcome for v in verdicts] == [Outcome.CORRECT] * 5


def test_a_small_pool_has_its_size() -> None:
    assert len(make_pool("mixed", 1, Sizes(100, 20, 20)).train) == 100
