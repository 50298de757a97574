"""The bench of the verifier judges right and wrong completions, and both sides agree on these."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.verifier import compare, items_of
from cures_core.errors import DataRejected
from tests.cures_core.prompts.files import jsonl

ROWS = [{"problem": f"What is {i} and {i}?", "answer": f"{2 * i}"} for i in range(1, 6)]


def test_a_third_of_the_completions_answer_another_prompt(tmp_path: Path) -> None:
    items = items_of([str(jsonl(tmp_path / "a.jsonl", ROWS))], 12)
    assert len(items) == 12
    assert [f"boxed{{{gold}}}" in said or f"boxed{{ {gold} }}" in said for said, gold in items] == [
        True, True, False, True, True, False, True, True, False, True, True, False,
    ]  # fmt: skip
    with pytest.raises(DataRejected, match="fewer than two"):
        items_of([str(jsonl(tmp_path / "b.jsonl", ROWS[:1]))], 3)


def test_both_sides_are_measured_on_the_same_items(tmp_path: Path) -> None:
    rows = [*ROWS, {"problem": "Expand it.", "answer": "x^2+2x+1"}]
    figures = compare(items_of([str(jsonl(tmp_path / "a.jsonl", rows))], 12), 1)
    assert figures["outcomes"] == {"correct": 8, "wrong": 4}
    assert figures["math_verify_correct"] == 8
    assert figures["ratio"] > 0
    assert figures["isolation_ms"] > 0
