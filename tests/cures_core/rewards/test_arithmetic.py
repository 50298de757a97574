"""Exact values of closed formulas: what is computed is right, what is too large is not begun."""

from __future__ import annotations

import math
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.rewards.arithmetic import MAX_BITS, exact_value, same_rationals

Formula = tuple[str, Fraction]


def _joined(pair: tuple[Formula, Formula]) -> st.SearchStrategy[Formula]:
    (left, a), (right, b) = pair
    made = [(f"({left})+({right})", a + b), (f"{{{left}}}-({right})", a - b), (rf"({left})\cdot({right})", a * b)]
    made += [(rf"\frac{{{left}}}{{{right}}}", a / b), (f"({left})/({right})", a / b)] if b else []
    return st.sampled_from(made)


FORMULAS: st.SearchStrategy[Formula] = st.recursive(
    st.integers(0, 99).map(lambda n: (str(n), Fraction(n))),
    lambda inner: st.one_of(
        st.tuples(inner, inner).flatmap(_joined),
        st.tuples(inner.filter(lambda made: made[1] != 0), st.integers(0, 4)).map(
            lambda p: (f"({p[0][0]})^{{{p[1]}}}", p[0][1] ** p[1])
        ),
        inner.map(lambda made: (f"-({made[0]})", -made[1])),
    ),
    max_leaves=8,
)


@given(FORMULAS)
def test_values_are_those_of_fractions(formula: Formula) -> None:
    text, value = formula
    assert exact_value(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2^{3^{2}}", 512),
        ("-2^2", -4),
        ("2^10", 1024),
        ("3(4)", 12),
        (r"6 \div 4", Fraction(3, 2)),
        ("5!", 120),
        (r"\binom{5}{2}", 10),
        ("0.125", Fraction(1, 8)),
        ("2^-3", Fraction(1, 8)),
        ("1^{9^{9}}", 1),
    ],
)
def test_readings(text: str, value: Fraction) -> None:
    assert exact_value(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "x", "1 2", r"2\frac{1}{2}", "1/2(3)", "1/0", "0^0", "0^{-1}", "3!!", "(-1)!", "2^{0.5}", r"\sqrt{4}", "1,2",
     "2^", "(1", "1)", "٣"],
)  # fmt: skip
def test_what_is_ambiguous_or_no_number_is_left_to_others(text: str) -> None:
    assert exact_value(text) is None


@pytest.mark.parametrize(
    "text",
    ["9^{9^{9^{9}}}", "2^{10000000}", f"2^{{{'9' * 900}}}", f"{'9' * 900}!", "10001!", r"\binom{99999999}{49999999}",
     "(" * 990, "-" * 990 + "1", "{" * 400 + "1" + "}" * 400, "((2^{60000})^{60000})"],
)  # fmt: skip
def test_what_is_too_large_is_not_begun(text: str) -> None:
    begun = time.process_time()
    exact_value(text)
    assert time.process_time() - begun < 0.5
    value = exact_value(text)
    assert value is None or value.numerator.bit_length() <= MAX_BITS


def test_numbers_up_to_the_limit_are_decided() -> None:
    assert same_rationals("2^{100000}", "4^{50000}")
    assert same_rationals("2^{100000}", "2^{100000}+1") is False
    assert exact_value("10000!") == math.factorial(10_000)


@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=999), st.integers(12, 20))
def test_long_decimals_spell_their_fraction_and_no_neighbour(value: Fraction, places: int) -> None:
    scaled = round(value * 10**places)
    sign, formula = "-" if value < 0 else "", rf"\frac{{{value.numerator}}}{{{value.denominator}}}"

    def decimal(n: int) -> str:
        return rf"{sign}\frac{{{abs(n)}}}{{1{'0' * places}}}"

    is_finite = (value * 10**30).denominator == 1
    is_long = len(str(abs(scaled))) >= 12
    assert same_rationals(formula, decimal(scaled)) is (
        Fraction(scaled, 10**places) == value or (is_long and not is_finite)
    )
    off = scaled + (10 ** max(2, len(str(abs(scaled))) - 13)) * (1 if scaled >= 0 else -1)
    assert same_rationals(formula, decimal(off)) is False
