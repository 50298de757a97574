from __future__ import annotations

from cures_core.prompts import PromptSet, make_prompt
from cures_core.prompts.diff import difference

SAME = make_prompt("How many eggs has Ann after she eats two of ten?", "8", level="1")
OLD = [
    SAME,
    make_prompt("A train travels 60 miles in 2 hours. How far does it travel in 5 hours?", "150"),
    make_prompt("Bob buys three pens for 4 dollars each and two books for 9 dollars. What does he pay?", "31"),
    make_prompt("3+4=", "7"),
    make_prompt("Which of these numbers is the largest prime below one hundred?", "97"),
]
NEW = [
    make_prompt(SAME.problem, "8", level="2"),
    make_prompt("A train travels 60 miles in 2 hours. How far does it travel in 5 hours?", "155"),
    make_prompt("Bob buys three pens for 4 dollars each and five books for 9 dollars. What does he pay?", "57"),
    make_prompt("3+5=", "8"),
    make_prompt("A garden is twice as long as wide and has a fence of 60 metres. How wide is it?", "10"),
]


def test_every_prompt_has_one_fate() -> None:
    found = difference(PromptSet.of(OLD), PromptSet.of(NEW))
    assert found.counts() == {"same": 1, "relabelled": 1, "edited": 2, "new": 2, "removed": 2}
    assert {(e.old.answer, e.new.answer, e.what) for e in found.edited} == {
        ("150", "155", "answer"),
        ("31", "57", "problem and answer"),
    }
    assert {p.problem for p in found.removed} == {"3+4=", OLD[4].problem}  # formulas are not paired by likeness
    assert {p.problem for p in found.new} == {"3+5=", NEW[4].problem}
    assert found.relabelled[0][0].level == "1"


def test_equal_sets_do_not_differ() -> None:
    found = difference(PromptSet.of(OLD), PromptSet.of(OLD[::-1]))
    assert found.counts() == {"same": 5, "relabelled": 0, "edited": 0, "new": 0, "removed": 0}


def test_nobody_is_paired_twice() -> None:
    one = [make_prompt("A train travels 60 miles in 2 hours. How far does it travel in 5 hours?", "150")]
    two = [
        make_prompt("A train travels 60 miles in 2 hours. How far does it travel in 6 hours?", "180"),
        make_prompt("A train travels 60 miles in 2 hours. How far does it travel in 7 hours?", "210"),
    ]
    found = difference(PromptSet.of(one), PromptSet.of(two))
    assert found.counts() == {"same": 0, "relabelled": 0, "edited": 1, "new": 1, "removed": 0}
    back = difference(PromptSet.of(two), PromptSet.of(one))
    assert back.counts() == {"same": 0, "relabelled": 0, "edited": 1, "new": 0, "removed": 1}


def test_a_common_beginning_is_not_enough() -> None:
    start = "A train leaves Boston at noon and travels 60 miles an hour on the old line. "
    one = make_prompt(start + "How far does it travel in 5 hours?", "300")
    two = make_prompt(start + "A car follows 20 minutes later with twice its speed; when do they meet at last?", "40")
    found = difference(PromptSet.of([one]), PromptSet.of([two]))
    assert found.counts() == {"same": 0, "relabelled": 0, "edited": 0, "new": 1, "removed": 1}


def test_empty_sets_are_sets() -> None:
    assert difference(PromptSet.of([]), PromptSet.of(OLD)).counts()["new"] == 5
