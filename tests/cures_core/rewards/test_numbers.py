"""Numbers as they are written, compared exactly; plain text keeps values."""

from __future__ import annotations

import unicodedata
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.rewards.numbers import MAX_EXPONENT, is_unit, last_number, parse_quantity
from cures_core.rewards.plain import plain


def value(text: str) -> Fraction | None:
    quantity = parse_quantity(text)
    return None if quantity is None else quantity.value


def same(left: str, right: str) -> bool:
    a, b = parse_quantity(left), parse_quantity(right)
    assert a is not None
    assert b is not None
    assert a.equals(b) == b.equals(a)
    return a.equals(b)


@given(st.integers(-(10**30), 10**30))
def test_integers_are_read_in_every_spelling(n: int) -> None:
    spellings = [
        str(n),
        f"{n:,}",
        f"{n:,}".replace(",", "{,}"),
        f"{n:,}".replace(",", " "),
        f"{n}.",
        f"{n}.000",
        f"${n}$",
    ]
    spellings += [str(n).translate({ord("0") + i: 0xFF10 + i for i in range(10)}), str(n).replace("-", "−")]
    assert {value(text) for text in spellings} == {Fraction(n)}


@given(st.fractions(max_denominator=10**6))
def test_fractions_are_read_in_every_spelling(q: Fraction) -> None:
    sign, top, low = "-" if q < 0 else "", abs(q.numerator), q.denominator
    whole, rest = divmod(top, low)
    spellings = [f"{sign}{top}/{low}", rf"{sign}\frac{{{top}}}{{{low}}}", rf"\dfrac{{{sign}{top}}}{{{low}}}"]
    spellings += [f"{sign}{whole} {rest}/{low}", rf"{sign}{whole}\frac{{{rest}}}{{{low}}}"]
    assert {value(text) for text in spellings} == {q}


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9))
def test_decimals_are_exact(d: object) -> None:
    exact = Fraction(str(d))
    assert value(f"{d:f}") == exact
    assert value(f"{d:,}") == exact
    assert value(f"{d:f}e3") == exact * 1000
    assert value(rf"{d:f} \times 10^{{-2}}") == exact / 100


@given(st.integers(0, 999), st.integers(0, 99), st.integers(1, 999))
def test_repeating_decimals_are_their_fractions(lead: int, fixed: int, period: int) -> None:
    read = value(rf"{lead}.{fixed:02d}\overline{{{period:03d}}}")
    assert read is not None
    far = Fraction(f"{lead}.{fixed:02d}" + f"{period:03d}" * 12)
    assert 0 <= read - far < Fraction(1, 10**30)


@given(st.text(max_size=400))
def test_any_text_is_a_number_or_not(text: str) -> None:
    parse_quantity(text)
    last_number(text)
    assert plain(plain(text)) == plain(text) or "\\" in plain(text) or "^" in plain(text)


NOT_NUMBERS = (
    *("1,23", "12,34,567", "1.234,56", "1/0", r"\frac{1}{0}", "5x", "2n", "five", "", "-", "$", "1 1", "1e", "--5"),
    *("-$-5", "1,2", "(1,2)", "5+5", "5^2", "10²", "3₂", "x=5", "1e999999999", "9" * 301, "1-1/2", "5sin"),
    f"1e{MAX_EXPONENT + 1}",
)


@pytest.mark.parametrize("text", NOT_NUMBERS)
def test_not_a_number(text: str) -> None:
    assert parse_quantity(text, units=False) is None


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("50%", "0.5", True),
        ("50%", "50", True),
        ("50%", "50 percent", True),
        ("50%", "50 dollars", False),
        ("50%", "5000", False),
        ("0.5", "50", False),
        ("$5", "5 dollars", True),
        ("$0.50", "50 cents", True),
        ("$50", "50 cents", False),
        ("50", "50 cents", True),
        ("$5", "€5", False),
        ("5 million", "5,000,000", True),
        ("5 million", "5", True),
        ("$5 million", "$5", False),
        ("2 dozen", "24 eggs", True),
        ("5 cm", "5 centimeters", True),
        ("5 cm", "5", True),
        ("5 cm", "5 m", False),
        ("5 hours", "5 minutes", False),
        ("5 eggs", "5 apples", True),
        ("1½", "1.5", True),
        ("11/2", "1½", False),
        ("0.333", "1/3", False),
        ("1 m", "100 cm", False),
        ("60 km/h", "60 kilometers per hour", True),
        ("60 km/h", "60 mph", False),
        ("5 m^2", "5 square meters", True),
        ("5 cm", "5 cm^2", False),
        ("9.8 m/s/s", "9.8 m/s^2", True),
        ("15 dollars per hour", "$15", True),
        ("15 dollars per hour", "50 cents", False),
        ("0.333333333333", "1/3", True),
        ("0.33333333333", "1/3", False),
        ("3.33333333333e-1", "1/3", True),
        ("3.33333333333e-10", "1/3000000000", True),
        ("3.33333333339e-10", "1/3000000000", False),
        ("1,428.57142857143", "10000/7", True),
        ("0.250000000001", "1/4", False),
        ("33.3333333333333%", "1/3", False),
    ],
)
def test_equal_quantities(left: str, right: str, equal: bool) -> None:
    assert same(left, right) is equal


def test_units_only_where_they_are_certain() -> None:
    assert parse_quantity("5 m") is not None
    for formula in ("5 m", "5x", "5abc", "2 pi", "2 sin", "3 mod"):
        assert parse_quantity(formula, units=False) is None
    for quantity in ("5 cm", "5cm", "12 eggs", "5 million", "50%", "50¢"):
        assert parse_quantity(quantity, units=False) is not None
    assert is_unit("square feet")
    assert not is_unit("million")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("a 3 b 4", "4"),
        ("5-3", "3"),
        ("x-3", "3"),
        ("is $-3$", "-3"),
        ("$1,234.50 now", "$1,234.50"),
        ("7.", "7"),
        (r"or \frac{1}{2} left", r"\frac{1}{2}"),
        ("costs $5 million", "$5 million"),
        ("2e3 m", "2e3"),
        ("nothing", None),
    ],
)
def test_last_number(text: str, number: str | None) -> None:
    assert last_number(text) == number


def test_plain_keeps_values_where_bare_nfkc_changes_them() -> None:
    assert unicodedata.normalize("NFKC", "10²") == "102"
    assert plain("10²") == "10^{2}"
    assert plain("x¹⁰") == "x^{10}"
    assert plain("a₁") == "a_{1}"
    assert plain("1½") == "1 1/2"
    assert plain("７\x00\u202e\u200b٣") == "73"
    assert plain("  a\t\n b\u00a0c ") == "a b c"
    assert plain("Jose\u0301") == "José"
