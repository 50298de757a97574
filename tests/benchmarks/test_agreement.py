"""Agreement with math-verify: on public gold answers, with every difference known and explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.agreement import compare
from cures_core.errors import DataRejected
from tests.cures_core.prompts.files import jsonl
from tests.shared_data import shared_file

KNOWN = {
    # A choice that is named: math-verify reads x = \\text{(B)} as an equation with a product in it.
    ("named", r"\text{(B)}"),
    ("named", r"\text{(C)}"),
    ("named", r"\text{(E)}"),
    # Groups of three digits with spaces: math-verify reads four numbers.
    ("respelled", r"11,\! 111,\! 111,\! 100"),
    ("named", r"11,\! 111,\! 111,\! 100"),
}
"""(how the answer was made, gold answer) of the differences on MATH-500; in all of them the answer is right."""


def test_a_difference_says_what_it_is_about(tmp_path: Path) -> None:
    rows = [{"problem": "Which one is it?", "answer": r"\text{(B)}"}, {"problem": "What is 2 and 3?", "answer": "5"}]
    figures = compare([str(jsonl(tmp_path / "a.jsonl", rows))])
    assert (figures["items"], figures["agreed"], figures["ours_unknown"]) == (12, 11, 0)
    assert figures["by_kind"] == {"named: correct here, wrong there": 1}
    assert figures["differences"][0] == {
        "kind": "named",
        "gold": r"\text{(B)}",
        "answer": r"x = \text{(B)}",
        "ours": "correct",
        "theirs": "wrong",
        "rule": "box",
        "reason": figures["differences"][0]["reason"],
    }
    assert figures["both_correct"] == 7
    with pytest.raises(DataRejected, match="fewer than two"):
        compare([str(tmp_path / "a.jsonl")], most=1)


@pytest.mark.slow
def test_on_three_thousand_completions_every_difference_is_known() -> None:
    figures = compare([str(shared_file("math500_test.jsonl"))])
    assert figures["items"] == 3000
    assert {(one["kind"], one["gold"]) for one in figures["differences"]} == KNOWN
    assert all((one["ours"], one["theirs"]) == ("correct", "wrong") for one in figures["differences"])
