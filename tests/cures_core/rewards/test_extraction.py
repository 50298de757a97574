"""Where the final answer is read, and that no malformed mark falls back to an earlier one."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.rewards.extraction import MAX_ANSWER_CHARS, extract, last_box

ALL = ("box", "hashes", "phrase", "last")


@pytest.mark.parametrize(
    ("text", "answer", "rule"),
    [
        (r"so \boxed{5}", "5", "box"),
        (r"\boxed{1}, no: \boxed{2}", "2", "box"),
        (r"\boxed{\frac{1}{2}} is it", r"\frac{1}{2}", "box"),
        (r"\boxed {5}", "5", "box"),
        (r"\boxed 5.", "5", "box"),
        (r"\fbox{5}", "5", "box"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}", "box"),
        (r"\boxed{a \} b}", r"a \} b", "box"),
        (r"\boxed{ 5 } then {6}", "5", "box"),
        (r"\boxed{x \text{ in } {y}}", r"x \text{ in } {y}", "box"),
        (r"\boxed{\boxed{5}}", "{5}", "box"),
        (r"\boxed{3, \boxed{4}}", "3, {4}", "box"),
        (r"} \boxed{5}", "5", "box"),
        (r"{ never closed \boxed{5}", "5", "box"),
        (r"\boxed{1 and \boxed{2}", "2", "box"),
        ("#### 18", "18", "hashes"),
        ("#### 1\n#### 2\nrest", "2", "hashes"),
        (r"#### 1 but \boxed{2}", "2", "box"),
        ("The answer is 42.", "42", "phrase"),
        ("The final answer is: 42", "42", "phrase"),
        ("Answer: 42 apples", "42 apples", "phrase"),
        ("**Answer:** 42", "42", "phrase"),
        ("The answer is **42**.", "42", "phrase"),
        ("The answer is $8$,$4$.", "8, 4", "phrase"),
        ("The answers: the answer is $8$ and $4$, of course.", "8, 4", "phrase"),
        ("The answer is $8$, where $x$ is free.", "8", "phrase"),
        ("The answer is $x+1$ for all x.", "x+1", "phrase"),
        (r"The answer is $\$18.00$ now", r"\$18.00", "phrase"),
        ("The answer is 1. No, the answer is 2.", "2", "phrase"),
        ("The answer is 3.5 because of that", "3.5", "phrase"),
        ("the answer is 1,234, I think", "1,234", "phrase"),
        ("first 3 then 4 eggs", "4", "last"),
        ("it costs $5", "$5", "last"),
        ("x - 3", "3", "last"),
        ("it is -3", "-3", "last"),
        ("about 50 %", "50 %", "last"),
        ("it is 3/4", "3/4", "last"),
    ],
)
def test_final_answer(text: str, answer: str, rule: str) -> None:
    found = extract(text, ALL)
    assert (found.answer, found.rule, found.reason) == (answer, rule, "")


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{1} and \boxed{2",
        r"\boxed{1} and \boxed{\frac{1}{2}",
        r"\boxed{1} and \boxed{}",
        r"\boxed{1} and \boxed",
        r"\boxed{1} and \boxed{" + "9" * (MAX_ANSWER_CHARS + 1) + "}",
        r"#### 1 and \boxed{2",
        "The answer is 1. \n####",
        "#### 1\n#### ",
        "The answer is 1. The answer is",
        "no number here",
        "",
    ],
)
def test_malformed_mark_has_no_answer(text: str) -> None:
    found = extract(text, ALL)
    assert found.answer == ""
    assert found.reason


def test_rules_are_tried_in_the_given_order() -> None:
    text = "The answer is 1.\n#### 2\nso \\boxed{3} or 4"
    assert [extract(text, (rule,)).answer for rule in ALL] == ["3", "2", "1", "4"]
    assert extract(text, ("last", "box")).answer == "4"
    assert extract("only 4", ("box",)).reason == "no final answer found"


def test_last_formula_is_taken_only_on_request() -> None:
    text = "so $x=2$ gives $y^2+1$, at step 7"
    assert extract(text, ("last",), formulas=True).answer == "y^2+1"
    assert extract(text, ("last",)).answer == "7"


@given(st.text(alphabet="{}\\ab1 $"), st.text(alphabet="ab1+ ", min_size=1).filter(str.strip))
def test_a_closed_box_at_the_end_is_read_whatever_came_before(before: str, inside: str) -> None:
    found = last_box(before.rstrip("\\") + r" \boxed{" + inside + "}")
    assert found is not None
    assert found.answer == inside


@given(st.text(alphabet="{}\\ab1 $"))
def test_an_open_box_at_the_end_is_never_an_answer(before: str) -> None:
    found = last_box(before.replace("{", "") + r" \boxed{1} \boxed{2")
    assert found is not None
    assert found.reason


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 100_000,
        "{" * 500_000 + "\\boxed{1}",
        "\\boxed{1}" * 60_000,
        "\\boxed{" * 100_000 + "}" * 100_000,
        "$" * 300_000,
        "the answer is " * 40_000,
        "answer" + " *_" * 200_000,
        "1," * 300_000,
        "#" * 500_000,
        "\\(" * 200_000,
        "-" * 500_000,
        "1 " * 300_000,
        "\\frac{1" * 100_000,
    ],
)
def test_time_is_linear_in_the_length(text: str) -> None:
    start = time.perf_counter()
    extract(text, ALL, formulas=True)
    assert time.perf_counter() - start < 2
