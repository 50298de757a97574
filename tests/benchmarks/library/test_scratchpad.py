"""The scratchpad world and the comparison of arms in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.library.arm import Arm, run
from benchmarks.library.comparison import paired, table
from benchmarks.library.scratchpad import (
    FRONTIER,
    LONGEST,
    SYMBOLS,
    Part,
    Tutors,
    held_out,
    is_correct,
    items,
    pool,
    problem_of,
)
from benchmarks.library.warm_start import make


def test_a_problem_and_its_answer() -> None:
    parts = [Part(7, (("+", 5), (">", 1))), Part(4, (("*", 8), ("-", 6)))]
    assert problem_of(parts) == "a7+5>1b4*8-6="
    assert [part.value() for part in parts] == [2, 6]
    assert Part(3, (("|", 5), ("<", 1))).value() == 1


@pytest.mark.parametrize(
    ("completion", "right"),
    [("7+5=2 so 2>1 is 2; b: 4*8=2, 2-6=6.~26", True), ("~26", True), ("26", False), ("~62", False), ("~26~2", False),
     ("~ 26", True), ("", False)],
)  # fmt: skip
def test_only_what_stands_after_the_last_mark_counts(completion: str, right: bool) -> None:
    assert is_correct(completion, "26") is right


def test_tutors_err_and_use_the_vocabulary() -> None:
    tutors, rng = Tutors(0), np.random.default_rng(1)
    shown = [tutors.demonstration(rng) for _ in range(500)]
    assert all(set(problem + completion) <= set(SYMBOLS) for problem, completion in shown)
    assert max(len(completion) for _, completion in shown) < LONGEST
    parts = [Part(7, (("+", 5), ("-", 1)))]
    plain = [is_correct(tutors.completion(parts, rng), "1") for _ in range(100)]
    gap = [is_correct(tutors.completion([Part(3, (("|", 5), ("|", 1)))], rng), "1") for _ in range(100)]
    assert np.mean(plain) > 0.95
    assert np.mean(gap) < 0.2


def test_pools_hold_no_held_out_problem_and_no_problem_twice() -> None:
    rows = pool(3, 400)
    assert len({row.problem for row in rows}) == len(rows) == 400
    assert not any(held_out(row.problem) for row in rows)
    exam = items(FRONTIER, 40, True, np.random.default_rng(0), set())
    assert all(held_out(item.problem) for item in exam)
    assert rows == pool(3, 400) != pool(4, 400)


def test_arms_of_one_seed_start_alike_and_are_compared_by_seed(tmp_path: Path) -> None:
    make(tmp_path / "policy", steps=8)
    sizes = {"policy": str(tmp_path / "policy"), "steps": 2, "prompts": 4, "group": 2, "evaluations": 2, "held_out": 12}
    rows = [run(Arm(method=method, seed=1, **sizes)) for method in ("uniform", "curriculum")]  # type: ignore[arg-type]
    assert rows[0]["curve"][0] == rows[1]["curve"][0]
    assert [point["rollouts"] for point in rows[1]["curve"]] == [0, 8, 16]
    assert rows[1]["counts"]["asked"] == rows[0]["rollouts"] == 16
    assert all(row["tokens"] > 0 for row in rows)
    result = {"arms": rows, "paired": paired(rows)}
    assert len(table(json.loads(json.dumps(result)))) == 1 + 3 + 2
