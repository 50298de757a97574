"""The scratchpad world: its problems, its judge, its tutors, its pools."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.curriculum.worlds.scratchpad import (
    FORMS,
    FRONTIER,
    HARD,
    LESSON,
    LEVELS,
    MARK,
    REMOTE,
    SHARES,
    SOLVED,
    STYLES,
    SYMBOLS,
    WORDS,
    WORLD,
    Part,
    PoolName,
    Tutors,
    draw_parts,
    examples,
    held_out,
    is_correct,
    make_pool,
    problem_of,
)
from benchmarks.curriculum.worlds.world import Sizes

SIZES = Sizes(train=400, heldout=60, frontier=40)
PARTS = [Part(7, (("+", 5), (">", 1))), Part(4, (("*", 8), ("-", 6)))]


def value(part: str) -> int:
    """The reference: a part such as `7+5>1`, worked from left to right."""
    found = int(part[0])
    for operator, digit in zip(part[1::2], map(int, part[2::2]), strict=True):
        found = {
            "+": lambda a, b: (a + b) % 10,
            "-": lambda a, b: (a - b) % 10,
            "*": lambda a, b: a * b % 10,
            ">": max,
            "<": min,
            "|": lambda a, b: abs(a - b),
        }[operator](found, digit)
    return found


def answer(problem: str) -> str:
    """Of a whole problem, from its text."""
    first, _, second = problem.rstrip("=")[1:].partition("b")
    return "".join(str(value(part)) for part in (first, second) if part)


def test_a_problem_and_its_answer() -> None:
    assert problem_of(PARTS) == "a7+5>1b4*8-6="
    assert answer("a7+5>1b4*8-6=") == "26" == "".join(str(part.value()) for part in PARTS)
    assert answer("a3|5<1=") == "1"


@pytest.mark.parametrize(
    ("completion", "right"),
    [("a: 7+5 is 2, so 2>1 is 2. Next b) 4*8=2; 2-6=6 => #26", True), ("#26", True), ("26", False), ("#62", False),
     ("#26#2", False), ("# 26", True), ("", False), ("#26 ", True), ("#026", False), ("#2", False),
     ("#26. Wait, ", False)],
)  # fmt: skip
def test_only_what_stands_after_the_last_mark_counts(completion: str, right: bool) -> None:
    assert is_correct(completion, "26") is right


def tokens(text: str) -> list[str]:
    """The reference: from left to right, a word where one fits, the longest of several."""
    found = []
    while text:
        fitting = [word for word in WORDS if text.startswith(word)]
        found.append(max(fitting, key=len, default=text[0]))
        text = text[len(found[-1]) :]
    return found


@given(st.integers(0, 2**32), st.sampled_from(sorted(STYLES)))
def test_a_tutor_who_does_not_err_is_right_in_every_style(seed: int, style: str) -> None:
    tutors, rng = Tutors(0), np.random.default_rng(seed)
    tutors.error_rates[style] = np.zeros((6, 10))
    parts = draw_parts({"+": 0.3, "*": 0.3, "|": 0.4}, 1 + seed % 2, rng)
    completion = tutors.completion(parts, rng, style)
    assert is_correct(completion, answer(problem_of(parts)))
    assert set(tokens(completion)) <= {*SYMBOLS, *WORDS}
    assert LESSON.length(completion) == len(tokens(completion))
    worked = [text for form in FORMS["then"] for text in completion.split(form)]
    assert len(worked) > 1 or STYLES[style].skips  # the values between are there, but where they are skipped


def test_right_completions_of_one_problem_have_many_forms() -> None:
    rng = np.random.default_rng(0)
    tutors = Tutors(0)
    texts = [tutors.completion(PARTS, rng) for _ in range(300)]
    right = [text for text in texts if is_correct(text, "26")]
    assert len(set(right)) > 0.9 * len(right) > 100
    lengths = [LESSON.length(text) + 1 for text in right]
    assert 20 <= min(lengths) < np.mean(lengths) < 50


def test_parts_come_in_either_order_and_steps_can_be_left_out() -> None:
    rng, tutors = np.random.default_rng(1), Tutors(0)
    texts = [tutors.completion(PARTS, rng, "terse") for _ in range(100)]
    assert 10 < sum(text.index("4") < text.index("7") for text in texts) < 50
    assert all(LESSON.length(text) < 25 for text in texts)


def test_doubts_lead_to_long_completions_some_of_which_are_cut() -> None:
    rng, tutors = np.random.default_rng(1), Tutors(0)
    hard = [Part(3, ((">", 5), ("|", 2))), Part(3, (("<", 7), ("|", 2)))]

    def lengths(style: str, parts: list[Part]) -> list[int]:
        return [LESSON.length(tutors.completion(parts, rng, style)) + 1 for _ in range(200)]

    limit = WORLD.rollout.max_new_tokens
    doubting = lengths("doubting", hard)
    assert 0.2 < np.mean([n > limit for n in doubting]) < 0.95
    easy = [Part(3, (("+", 5), ("-", 2))), Part(3, (("-", 7), ("+", 2)))]
    assert np.mean([n > limit for n in lengths("doubting", easy)]) < 0.2
    for style in ("terse", "worked"):
        assert np.mean([n > limit for n in lengths(style, hard)]) < 0.1


def test_errors_are_confusions_and_follow_the_operator() -> None:
    tutors, rng = Tutors(0), np.random.default_rng(1)

    def said(parts: list[Part]) -> list[str]:
        return [tutors.completion(parts, rng).rpartition(MARK)[2] for _ in range(300)]

    assert said([Part(7, (("+", 5), ("-", 1)))]).count("1") > 290
    assert 120 < said([Part(3, ((">", 5), ("+", 1)))]).count("6") < 285
    gap = Counter(said([Part(5, (("|", 3), ("+", 0)))]))
    assert set(gap) == {"2", "8"}  # taken for a sum it is 8
    assert 1 <= gap["2"] < 75


def test_demonstrations_fit_the_model_and_are_the_same_for_a_seed() -> None:
    demonstrate = LESSON.tutor(3)
    shown = demonstrate(np.random.default_rng(0), 300)
    assert shown == LESSON.tutor(3)(np.random.default_rng(0), 300)
    assert shown != LESSON.tutor(4)(np.random.default_rng(0), 300)
    assert max(LESSON.length(problem + completion) + 1 for problem, completion in shown) <= LESSON.positions
    longest = max(LESSON.length(problem) for problem, _ in shown)
    assert longest + WORLD.rollout.max_new_tokens <= LESSON.positions


@pytest.mark.parametrize("name", list(SHARES))
def test_a_pool_is_what_its_shares_say_and_keeps_what_is_held_out_apart(name: PoolName) -> None:
    pool = make_pool(name, 3, SIZES)
    solved, frontier, wrong, remote = SHARES[name]
    counts = Counter(
        "solved" if p.level in SOLVED else "remote" if p.level in REMOTE else "frontier" for p in pool.train
    )
    expected = {"solved": solved, "frontier": frontier + wrong, "remote": remote}
    assert counts == {kind: round(400 * share) for kind, share in expected.items() if share}
    mislabelled = [p for p in pool.train if p.answer != answer(p.problem)]
    assert len(mislabelled) == round(400 * wrong)
    assert {p.level for p in mislabelled} <= set(FRONTIER)
    assert not any(held_out(p.problem) for p in pool.train)
    for suite, num in ((pool.heldout, 60), (pool.frontier, 40)):
        assert abs(len(suite) - num) <= 2
        assert all(held_out(p.problem) and p.answer == answer(p.problem) for p in suite)
    assert {p.level for p in pool.frontier} == {*FRONTIER, *(REMOTE if remote else ())}
    unsolved = frontier + wrong + remote
    assert sum(p.level in REMOTE for p in pool.frontier) == round(40 * remote / unsolved)
    assert all(set(p.problem) & set(HARD) for p in pool.frontier)


def test_pools_have_their_full_size_too() -> None:
    """No problem of one level is one of another."""
    for name in SHARES:
        pool = make_pool(name, 11, WORLD.sizes)
        assert len(pool.train) == WORLD.sizes.train
        assert not set(pool.train.ids) & set(pool.heldout.ids)


def test_pools_differ_by_seed_and_their_suites_do_not() -> None:
    one, same, other = (make_pool("waste", seed, SIZES) for seed in (3, 3, 4))
    assert one.train.digest == same.train.digest != other.train.digest
    assert one.frontier.digest == other.frontier.digest


def test_no_operand_of_a_remote_problem_gives_the_answer_by_luck() -> None:
    rng = np.random.default_rng(0)
    parts = draw_parts({"|": 1.0}, 500, rng)
    assert min(digit for part in parts for _, digit in part.steps) == 1


def test_examples_are_of_every_kind() -> None:
    found = examples(3, 1)
    assert Counter(p.level for p in found) == dict.fromkeys(LEVELS, 3)
    assert all(p.answer == answer(p.problem) for p in found)


def test_base_policies_differ_in_habits_as_in_errors() -> None:
    """By seed: shares of the styles, words, error rates."""
    texts = [[Tutors(seed).completion(PARTS, np.random.default_rng(0)) for _ in range(5)] for seed in (1, 2, 1)]
    assert texts[0] == texts[2] != texts[1]
    rates = [Tutors(seed).error_rates["worked"] for seed in (1, 2)]
    assert np.abs(rates[0] - rates[1]).max() > 0.05
