"""Instructions and templates around problems are no evidence of contamination, and do not hide it."""

from __future__ import annotations

import pytest

from cures_core.prompts import PromptSet, make_prompt
from cures_core.prompts.boilerplate import SAMPLE, boilerplate, divided
from cures_core.prompts.canonical import canonical, tokens
from cures_core.prompts.overlap import Match, find_overlap

SHORT = "Let us think step by step and put the final answer in a box."
LONG = " ".join(f"Rule {word}: keep to the format that the examiner has asked for in this exam." for word in (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"
))  # fmt: skip
NAMES = [
    f"{first}{second}" for first in ("Ann", "Bob", "Cid", "Dot", "Eve", "Fay") for second in ("a", "e", "i", "o", "u")
]
THINGS = ("pears", "stamps", "candles", "bricks", "pencils", "shells")


def problem(i: int) -> str:
    name, thing = NAMES[i % len(NAMES)], THINGS[i % len(THINGS)]
    other, drawer = NAMES[-1 - i % len(NAMES)], chr(97 + i % 26)
    return f"{name} keeps {i + 3} {thing} in drawer {drawer} and sells half of those that {other} left"


def prompts(start: int, number: int, wrap: str = "{}", answer: str = "12") -> PromptSet:
    return PromptSet.of([make_prompt(wrap.format(problem(i)), answer) for i in range(start, start + number)])


def matches(train: PromptSet, suite: PromptSet) -> list[Match]:
    return [match for _, match in find_overlap(train, {"exam": suite})]


@pytest.mark.parametrize("text", [SHORT, LONG])
@pytest.mark.parametrize("wrap", ["{} %s", "%s {}", "%s {} %s"])
def test_shared_boilerplate_is_no_evidence_whatever_its_length(text: str, wrap: str) -> None:
    wrap = wrap.replace("%s", text)
    assert matches(prompts(0, 15, wrap), prompts(15, 15, wrap)) == []


@pytest.mark.parametrize("text", [SHORT, LONG])
def test_boilerplate_hides_no_copy_on_either_side(text: str) -> None:
    plain, wrapped = prompts(0, 15), prompts(0, 15, f"{{}} {text}")
    for train, suite in ((plain, wrapped), (wrapped, plain), (prompts(0, 15, f"{text} {{}}"), wrapped)):
        found = matches(train, suite)
        assert len(found) == 15
        assert all(match.leak for match in found)


@pytest.mark.parametrize(("train_wrap", "suite_wrap"), [("{}", "%s {}"), ("%s {}", "{}")])
def test_boilerplate_hides_no_short_problem(train_wrap: str, suite_wrap: str) -> None:
    def chains(wrap: str) -> PromptSet:
        return PromptSet.of([make_prompt(wrap.replace("%s", LONG).format(f"{i} + {i + 2} = ?"), "4") for i in range(9)])

    found = matches(chains(train_wrap), chains(suite_wrap))
    assert [match.kind for match in found] == ["normalised"] * 9


def test_problems_made_by_one_template_are_not_the_same_for_what_they_share() -> None:
    """Only what differs inside two templates tells these apart: nothing is left to call them copies by."""
    least, most = (
        "Find the {} value that the function of row {} takes on the interval in the table below it",
        "smallest",
    )
    train = PromptSet.of([make_prompt(least.format("largest", i), "3") for i in range(30)])
    suite = PromptSet.of([make_prompt(least.format(most, i), "4") for i in range(30)])
    assert [match for match in matches(train, suite) if match.leak] == []
    numbers = PromptSet.of([make_prompt(f"How much is the remainder of {i} times {i} by 7?", "3") for i in range(30)])
    others = PromptSet.of([make_prompt(f"How much is the remainder of {i} times {i} by 9?", "4") for i in range(30)])
    assert [match for match in matches(numbers, others) if match.leak] == []


def test_what_few_texts_share_is_evidence() -> None:
    item = make_prompt(
        "A ferry leaves the old harbour at noon with ninety guests and meets a tug. When do they part?", "3"
    )
    suite = PromptSet.of([item, *prompts(0, 4, f"{{}} {SHORT}")])
    copy = make_prompt(f"{item.problem} Show all of your work please.", "3")
    assert [match.kind for match in matches(PromptSet.of([copy]), suite)] == ["contained"]


def test_a_passage_is_boilerplate_from_five_texts_and_a_fifth_on() -> None:
    words = tokens(canonical(f"Odd one. {SHORT}"))
    texts = [f"{problem(i)} {SHORT}" for i in range(5)]
    assert divided(words, boilerplate(texts))[0] == ["odd", "one"]
    assert divided(words, boilerplate(texts[:4])) == (words, [])
    assert divided(words, boilerplate([*texts, *(f"Number {i} of a long list" for i in range(21))]))[0] == words


def test_large_sets_are_sampled_evenly() -> None:
    texts = [f"{problem(i)} {SHORT if i % 4 == 0 else ''}" for i in range(3 * SAMPLE)]
    assert divided(tokens(canonical(SHORT)), boilerplate(texts))[0] == []
