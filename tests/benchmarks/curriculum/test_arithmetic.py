"""The pools of graded arithmetic: right answers, the mixture they are named for, nothing held out in them."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction

import pytest

from benchmarks.curriculum.worlds.arithmetic import SHARES, PoolName, make_pool
from benchmarks.curriculum.worlds.world import Sizes
from cures_core.terms import Prompt


def right_answer(problem: str) -> Fraction:
    numbers = [int(number) for number in re.findall(r"\d+", problem)]
    if "boxes" in problem:
        return Fraction(numbers[0] * numbers[1] + numbers[2])
    a, b = numbers
    if "*" in problem:
        return Fraction(a * b)
    return Fraction(a + b if "+" in problem or "gets" in problem else a - b)


def key(prompt: Prompt) -> tuple[str, ...]:
    return (*re.findall(r"\d+", prompt.problem), str(right_answer(prompt.problem)))


@pytest.mark.parametrize("name", list(SHARES))
@pytest.mark.parametrize("seed", [1000, 1010, 1020])
def test_a_pool_is_what_its_shares_say_and_its_labels_are_right(name: PoolName, seed: int) -> None:
    pool = make_pool(name, seed)
    easy, frontier, mislabelled, dead = SHARES[name]
    counts = Counter(prompt.level for prompt in pool.train)
    assert counts == {
        level: round(1600 * share)
        for level, share in (("easy", easy), ("frontier", frontier + mislabelled), ("dead", dead))
        if share
    }
    wrong = [p for p in pool.train if Fraction(p.answer) != right_answer(p.problem)]
    assert len(wrong) == round(1600 * mislabelled)
    assert all(p.level == "frontier" for p in wrong)
    assert all(Fraction(p.answer) == right_answer(p.problem) for p in pool.heldout)
    assert min(int(p.answer) for p in pool.heldout) >= 0


@pytest.mark.parametrize("name", list(SHARES))
def test_no_held_out_problem_is_trained_on_in_any_words(name: PoolName) -> None:
    pool = make_pool(name, 7)
    assert not {key(p) for p in pool.heldout} & {key(p) for p in pool.train}
    assert len(Counter(p.source for p in pool.heldout)) == 7


def test_a_seed_gives_the_same_pool_and_another_one_another() -> None:
    problems = [[p.problem for p in make_pool("mixed", seed, Sizes(100, 20, 20)).train] for seed in (1, 1, 2)]
    assert problems[0] == problems[1] != problems[2]


def test_too_many_problems_of_a_level_are_an_error() -> None:
    with pytest.raises(ValueError, match="level easy"):
        make_pool("waste", 1, Sizes(4000, 10, 10))
