from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from cures_core.config.data import DataConfig
from cures_core.prompts import PromptSet, load_prompts, make_prompt
from cures_core.prompts.overlap import Match, SuiteIndex, find_overlap, overlap_flaw
from cures_core.terms import Prompt
from tests.shared_data import shared_file

ITEM = make_prompt(
    "A train leaves Boston at 3 p.m. and travels 60 miles an hour. How many miles does it travel in 5 hours?", "300"
)
SHORT = make_prompt("What is $2+2$?", "4")
SUITES = {"exam": PromptSet.of([ITEM, SHORT])}


def kind(problem: str, answer: str = "0") -> str:
    found = SuiteIndex(SUITES).match(problem, answer)
    return found.kind if found else ""


def test_exact_text_is_found_whatever_the_answer() -> None:
    assert kind(ITEM.problem) == kind(SHORT.problem) == "exact"


def test_reformatted_text_is_found() -> None:
    assert kind(ITEM.problem.upper().replace(".", " .")) == "normalised"
    assert kind("what is  \\(2 + 2\\) ?") == "normalised"


def test_text_around_the_problem_does_not_hide_it() -> None:
    assert kind(f"Solve my homework. {ITEM.problem} Show your work!") == "contained"


def test_other_words_with_the_same_numbers_and_answer_are_the_same_problem() -> None:
    reworded = ITEM.problem.replace("does it travel in 5 hours", "does it get within 5 hours")
    assert kind(reworded, "300.0") == "ngram"
    assert kind(reworded, "7") == "near"  # another answer: a sibling


def test_other_numbers_are_a_near_copy() -> None:
    assert kind(ITEM.problem.replace("60", "70"), "350") == "near"
    assert kind(ITEM.problem.replace("60", "70"), "300") == "near"


def test_short_problems_match_exactly_or_not_at_all() -> None:
    assert kind("What is $2+3$?", "4") == ""
    assert kind("I wonder. What is $2+2$? Tell me.", "4") == ""


def test_chains_of_symbols_do_not_match_by_chance() -> None:
    """Two sets of the built-in task differ in digits only."""
    suite = PromptSet.of([make_prompt(f"{i % 10}+{i // 10}-3*4+5|6-7<8=", "12345678") for i in range(100)])
    others = PromptSet.of([make_prompt(f"{i % 10}+{i // 10}-3*4+5|6-7<9=", "12345678") for i in range(100)])
    assert list(find_overlap(others, {"heldout": suite})) == []


def test_the_strongest_match_counts() -> None:
    twin = make_prompt(ITEM.problem.replace("60", "70"), "350")
    index = SuiteIndex({"a": PromptSet.of([twin]), "b": PromptSet.of([ITEM])})
    found = index.match(f"Please: {ITEM.problem}", "300")
    assert found is not None
    assert (found.suite, found.kind, found.item) == ("b", "contained", ITEM.id)


def test_a_match_becomes_a_flaw_by_policy() -> None:
    leak, near = Match("s", "i" * 32, "exact", 1.0, 1.0), Match("s", "i" * 32, "near", 0.7, 0.5)
    assert [overlap_flaw(leak, policy)[0] for policy in ("drop", "warn", "reject")] == [
        "eval_leak",
        "eval_leak_kept",
        "eval_leak",
    ]
    assert overlap_flaw(near, "drop")[0] == "eval_near"


# On public sets: what is planted among clean prompts is found, and little else.


@pytest.fixture(scope="module")
def public() -> dict[str, PromptSet]:
    names = ("gsm8k_train", "math_train", "gsm8k_test", "math500_test")
    return {n: load_prompts(DataConfig(path=str(shared_file(f"{n}.jsonl")))).prompts for n in names}


@pytest.fixture(scope="module")
def index(public: dict[str, PromptSet]) -> SuiteIndex:
    return SuiteIndex({name: public[name] for name in ("gsm8k_test", "math500_test")})


def planted(public: dict[str, PromptSet], seed: int) -> list[Prompt]:
    items = [p for name in ("gsm8k_test", "math500_test") for p in public[name]]
    rng = np.random.default_rng(seed)
    return [items[i] for i in rng.permutation(len(items))[:100]]


def reformat(text: str, rng: np.random.Generator) -> str:
    """What copying through other formats does to a problem, several of these at once."""
    changes: Sequence[Callable[[str], str]] = (
        str.upper if "\\" not in text and "[asy]" not in text else lambda t: t,
        lambda t: t.replace(" ", "  "),
        lambda t: re.sub(r"\$([^$]+)\$", r"\\(\1\\)", t),
        lambda t: t.replace("\\frac", "\\dfrac").replace("\\dots", "\\ldots"),
        lambda t: t.replace("'", "\u2019").replace(" - ", " \u2212 "),
        lambda t: t.replace("\\left(", "(").replace("\\right)", ")"),
        lambda t: t.replace(", ", " , ").replace("? ", " ? "),
        lambda t: re.sub(r"\s*\n\s*", " ", t),
        lambda t: re.sub(r"(?<=[a-z])\.(?= )", " .", t),
        lambda t: t.replace("\\le ", "\\leq ").replace("\\ge ", "\\geq "),
    )
    for i in rng.permutation(len(changes))[:5]:
        text = changes[i](text)
    return text + " "


def test_planted_copies_are_all_found(public: dict[str, PromptSet], index: SuiteIndex) -> None:
    rng = np.random.default_rng(3)
    exact = Counter(m.kind if (m := index.match(p.problem, p.answer)) else "" for p in planted(public, 1))
    assert exact == {"exact": 100}
    moved = [(p, reformat(p.problem, rng)) for p in planted(public, 2)]
    assert sum(p.problem.strip() != text.strip() for p, text in moved) > 95
    found = [index.match(text, p.answer) for p, text in moved]
    assert all(m is not None and m.leak for m in found)
    assert sum(m.kind in ("exact", "normalised") for m in found if m) >= 99


def test_clean_prompts_are_left_alone(public: dict[str, PromptSet], index: SuiteIndex) -> None:
    """Of all 14,967 prompts of two public training sets two match, both rightly (the same problem reworded)."""
    clean = [p for name in ("gsm8k_train", "math_train") for p in public[name]]
    rng = np.random.default_rng(5)
    chosen = [clean[i] for i in rng.permutation(len(clean))[:10_000]]
    found = [(p, m) for p in chosen if (m := index.match(p.problem, p.answer)) is not None]
    leaks = [p.problem for p, m in found if m.leak]
    known = {
        "How many integers are there in the solution set of $|x-2| \\leq 5.6$?",
        "If $x$, $y$, and $z$ are positive with $xy=24$, $xz = 48$, and $yz=72$, what is the value of $x+y+z$?",
    }
    assert set(leaks) <= known
    assert len(found) - len(leaks) < 100  # near copies, reported only: under 1 %


def test_renumbered_copies_are_reported_as_near(public: dict[str, PromptSet], index: SuiteIndex) -> None:
    rng = np.random.default_rng(7)

    def renumbered(text: str) -> str:
        return re.sub(r"\d{1,9}", lambda m: str(rng.integers(10 ** (len(m[0]) - 1), 10 ** len(m[0]))), text)

    changed = [(p, text) for p in planted(public, 4) if (text := renumbered(p.problem)) != p.problem]
    found = Counter(m.kind if (m := index.match(text, "no such answer")) else "" for _, text in changed)
    assert found["near"] / len(changed) > 0.9
    assert found["ngram"] == found["exact"] == 0
