"""The built-in task: known answers, disjoint sets, a tutor that errs as stated."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from cures_core.builtin.chains import (
    MAX_STEPS,
    OPERATORS,
    TUTOR_ERROR,
    Chains,
    Tutor,
    build_pool,
    build_suite,
    draw_chains,
    scratchpads,
    write_builtin,
)


def chain(text: str) -> Chains:
    steps = (len(text) - 2) // 2
    operators = np.zeros((1, MAX_STEPS), dtype=np.int64)
    digits = np.zeros((1, MAX_STEPS), dtype=np.int64)
    for t in range(steps):
        operators[0, t] = OPERATORS.index(text[1 + 2 * t])
        digits[0, t] = int(text[2 + 2 * t])
    return Chains(np.array([int(text[0])]), operators, digits, np.array([steps]))


@pytest.mark.parametrize(
    ("problem", "answer"), [("7+5>3=", "23"), ("3-4-4=", "95"), ("2|3|9=", "18"), ("9*9<0=", "10"), ("5=", "")]
)
def test_known_answers(problem: str, answer: str) -> None:
    c = chain(problem)
    assert c.problem(0) == problem
    assert "".join(map(str, scratchpads(c)[0, : c.steps[0]])) == answer


def test_a_wrong_step_is_carried_on() -> None:
    c = chain("1+1+1=")
    wrong = np.zeros((1, MAX_STEPS), dtype=bool)
    wrong[0, 0] = True
    assert list(scratchpads(c, wrong)[0, :2]) == [3, 4]


def test_sets_are_unique_and_disjoint_and_a_twentieth_is_mislabelled() -> None:
    pool, suite = build_pool(800, 1), build_suite(200, 2, frontier=0.5)
    problems = [row["problem"] for row in pool]
    assert len(set(problems)) == 800
    assert not set(problems) & {row["problem"] for row in suite}
    wrong = [r for r in pool if r["answer"] != _truth(r["problem"])]
    assert len(wrong) == 40
    assert all(r["answer"] == _truth(r["problem"]) for r in suite)


def _truth(problem: str) -> str:
    c = chain(problem)
    return "".join(map(str, scratchpads(c)[0, : c.steps[0]]))


def test_tutor_errs_at_its_rate() -> None:
    tutor = Tutor(0)
    chains, pads = tutor.demonstrate(np.random.default_rng(1), 20_000)
    first_right = scratchpads(chains)[:, 0]
    for o in range(len(OPERATORS)):
        rows = chains.operators[:, 0] == o
        observed = float((pads[rows, 0] != first_right[rows]).mean())
        assert observed == pytest.approx(float(tutor.error_rate[o].mean()), abs=0.03)
        assert abs(observed - TUTOR_ERROR[o]) < 0.15


def test_topic_is_the_first_operator() -> None:
    topics = np.arange(600) % 6
    chains = draw_chains(np.random.default_rng(0), topics, np.full(600, 5))
    assert np.array_equal(chains.operators[:, 0], topics)
    assert 0.7 < (chains.operators[topics > 1, 1:] == topics[topics > 1, None]).mean() < 0.9


def test_the_built_in_sets_never_change(tmp_path: Path) -> None:
    write_builtin(tmp_path)
    digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest()[:16] for p in sorted(tmp_path.iterdir())}
    assert digests == {
        "frontier.jsonl": "b2172f95305c94c2",
        "heldout.jsonl": "1034432370e0ebab",
        "train.jsonl": "dde5bc9a1cb586ec",
    }
