from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.prompts.canonical import answer_key, canonical, coarse, tokens

SAME = [
    ("What is  2 + 3 ?", "what is 2+3"),
    ("Find $x$.", "find \\(x\\)"),
    ("$\\dfrac{1}{2}$", "\\frac12"),
    ("$a \\leq b$, $a\\ne b$", "a ≤ b , a ≠ b"),
    ("$1,\\,2,\\;\\dots,\\quad n$", "1, 2, \\ldots, n"),
    ("$\\left(x\\right)$", "(x)"),
    ("Ann’s “big” egg — 3", 'Ann\'s "big" egg - 3'),
    ("$2^{\\text{nd}}$", "$2^{\\mathrm{nd}}$"),
    ("9-kilometer-long walk!", "9 kilometer long walk"),
    ("① ﬁve", "1 five"),
    ("x^{2}", "x^2"),
    ("Go!Now", "go now"),
]

DIFFERENT = [
    ("88/(4/2)", "88/4/2"),
    ("3-4", "3+4"),
    ("1.5 kg", "15 kg"),
    (".5 kg", "5 kg"),
    ("1,000", "1 000"),
    ("5!", "5"),
    ("twenty", "20"),
    ("\\frac{12}{3}", "\\frac{1}{23}"),
    ("x^2", "x2"),
    ("|x|", "x"),
    ("-3", "3"),
    ("3|4=", "34="),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_spelling_goes(a: str, b: str) -> None:
    assert canonical(a) == canonical(b)
    assert coarse(a) == coarse(b)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_meaning_stays(a: str, b: str) -> None:
    assert canonical(a) != canonical(b)


WORDS = st.lists(st.sampled_from(["Ann", "has", "3", "eggs", "1.5", "x+y", "$z^2$", "big"]), min_size=1, max_size=8)


@given(WORDS, st.integers(1, 3), st.booleans())
def test_case_and_spacing_never_matter(words: list[str], spaces: int, upper: bool) -> None:
    text = (" " * spaces).join(words)
    assert canonical(text.upper() if upper else text) == canonical(" ".join(words))


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_has_a_form(text: str) -> None:
    tokens(canonical(text))
    coarse(text)


@pytest.mark.parametrize(
    ("a", "b"),
    [("097", "97"), ("1,000", "1000.0"), ("$4$", "4"), ("\\frac{1}{2}", "0.5"), ("1/2", "\\dfrac12"), ("-2.50", "-2.5"),
     ("\\textbf{(113) }", "113"), ("7 - 2 \\pi", "7-2\\pi"), ("4.", "4"), ("-\\frac{5}{2}", "-5/2")],
)  # fmt: skip
def test_equal_values_share_a_key(a: str, b: str) -> None:
    assert answer_key(a) == answer_key(b)


@pytest.mark.parametrize(
    ("a", "b"), [("97", "79"), ("1,2", "12a"), ("x", "y"), ("1/2", "1/20"), ("1/0", "0"), ("(1,2)", "12"), ("-1", "1")]
)
def test_other_values_do_not(a: str, b: str) -> None:
    assert answer_key(a) != answer_key(b)


def test_long_numbers_are_not_computed() -> None:
    assert answer_key("9" * 100_000).startswith("t:")
