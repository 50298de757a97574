"""Knows the exact value of a closed formula: integers, fractions, + - * /, integer powers, factorials, binomials.

What it cannot read, or what would outgrow `MAX_BITS`, is None: another judge decides. It reads the LaTeX of
`tidy.formulas`, and no number in it is ever a float.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

MAX_BITS = 1 << 17
"""Longest numerator or denominator computed, in bits: one operation on such numbers takes milliseconds."""
MAX_FACTORIAL = 10_000
"""Largest n of n! and of binomials; 10,000! has 118,458 bits."""
MIN_DIGITS = 12
"""Significant digits from which on a decimal may be the rounded spelling of a number that has no finite one."""
FLOAT_DIGITS = 15
"""Significant digits that a 64-bit float holds of any decimal: beyond them, what programs print is noise."""

_MARK = re.compile(
    r"\s*(?P<number>\d+(?:\.\d+)?|\.\d+)|\s*(?P<name>\\(?:frac|d?binom|cdot|times|div)(?![A-Za-z]))"
    r"|\s*(?P<sign>[-+*/^!(){}])"
)
_SIGNS = {r"\cdot": "*", r"\times": "*", r"\div": "/"}
_DECIMAL = re.compile(r"\s*([+-]?)\s*\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(1(0+))\s*\}\s*")


def exact_value(latex: str) -> Fraction | None:
    """The rational number that a formula is, None where it is no such formula (or too large a number)."""
    try:
        return _Reader(_marks(latex)).whole()
    except (_UnreadableError, ZeroDivisionError, RecursionError):
        return None


def same_rationals(left: str, right: str) -> bool | None:
    """Whether two formulas are the same rational number, or one is the decimal that spells the other; None where one
    of them is no such number."""
    a, b = exact_value(left), exact_value(right)
    if a is None or b is None:
        return None
    spelled = ((a, long_decimal(right)), (b, long_decimal(left)))
    return a == b or any(decimal is not None and is_spelled(value, *decimal) for value, decimal in spelled)


def long_decimal(latex: str) -> tuple[Fraction, Fraction] | None:
    """(value, tolerance) of a decimal of at least `MIN_DIGITS` significant digits, None for anything else.

    It is read as `tidy.formulas` writes decimals: as a fraction over a power of ten.
    """
    match = _DECIMAL.fullmatch(latex)
    tolerance = None if match is None else tolerance_of(match[2], len(match[4]))
    if match is None or tolerance is None:
        return None
    value = Fraction(int(match[2]), int(match[3]))
    return (-value if match[1] == "-" else value), tolerance


def tolerance_of(digits: str, places: int) -> Fraction | None:
    """How far a decimal may lie from the number that it spells; None for one that spells only itself.

    Less than one unit of its last digit, or of its 15th significant one if that comes first. `digits` are all its
    digits, `places` those behind the point. With fewer than `MIN_DIGITS` significant ones it spells only itself.
    """
    significant = len(digits.lstrip("0"))
    if significant < MIN_DIGITS:
        return None
    return Fraction(10) ** (max(0, significant - FLOAT_DIGITS) - places)


def is_spelled(value: Fraction, decimal: Fraction, tolerance: Fraction) -> bool:
    """True if `decimal` spells `value`, which has no finite decimal of its own."""
    return abs(value - decimal) < tolerance and not _is_finite(value)


def _is_finite(value: Fraction) -> bool:
    """Does it have a finite decimal: no prime factor but 2 and 5 below the line?"""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


class _UnreadableError(Exception):
    """The text is no formula of this kind, or its value is too large."""


def _marks(latex: str) -> list[str]:
    marks, at = [], 0
    text = latex.rstrip()
    while at < len(text):
        match = _MARK.match(text, at)
        if match is None:
            raise _UnreadableError
        found = match.group().strip()
        marks.append(_SIGNS.get(found, found))
        at = match.end()
    return marks


class _Reader:
    """Recursive descent over the marks; every result is checked for its size before it is computed."""

    def __init__(self, marks: list[str]) -> None:
        self._marks, self._at = marks, 0

    def whole(self) -> Fraction:
        value = self._sum()
        if self._at < len(self._marks):
            raise _UnreadableError
        return value

    @property
    def _next(self) -> str:
        return self._marks[self._at] if self._at < len(self._marks) else ""

    def _take(self, *wanted: str) -> str:
        """The next mark if it is one of `wanted`, else ""."""
        if self._next not in wanted or not self._next:
            return ""
        self._at += 1
        return self._marks[self._at - 1]

    def _expect(self, mark: str) -> None:
        if not self._take(mark):
            raise _UnreadableError

    def _sum(self) -> Fraction:
        value = self._product()
        while sign := self._take("+", "-"):
            term = self._product()
            value = _sized(value + term if sign == "+" else value - term)
        return value

    def _product(self) -> Fraction:
        value = self._signed()
        divided = False
        while True:
            if sign := self._take("*", "/"):
                factor = self._signed()
            elif self._next == "(" and not divided:  # 2(3) is a product; 1/2(3) and 1 2 mean nothing certain
                sign, factor = "*", self._power()
            else:
                return value
            divided |= sign == "/"
            value = _sized(value * factor if sign == "*" else value / factor)

    def _signed(self) -> Fraction:
        if sign := self._take("+", "-"):
            value = self._signed()
            return -value if sign == "-" else value
        return self._power()

    def _power(self) -> Fraction:
        base = self._factorial()
        if not self._take("^"):
            return base
        exponent = self._group() if self._next == "{" else self._exponent()
        return _raised(base, exponent)

    def _exponent(self) -> Fraction:
        """An exponent without braces: a number, with its sign."""
        sign = self._take("+", "-")
        value = self._number()
        return -value if sign == "-" else value

    def _factorial(self) -> Fraction:
        value = self._atom()
        while self._take("!"):
            if self._next == "!" or value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL:
                raise _UnreadableError  # n!! is another function
            value = Fraction(math.factorial(value.numerator))
        return value

    def _atom(self) -> Fraction:
        if self._take("("):
            value = self._sum()
            self._expect(")")
            return value
        if self._next == "{":
            return self._group()
        if self._take(r"\frac"):
            top, low = self._group(), self._group()
            return _sized(top / low)
        if self._take(r"\binom", r"\dbinom"):
            top, low = self._group(), self._group()
            return _binomial(top, low)
        return self._number()

    def _group(self) -> Fraction:
        self._expect("{")
        value = self._sum()
        self._expect("}")
        return value

    def _number(self) -> Fraction:
        text = self._next
        if not text or text[0] not in "0123456789.":
            raise _UnreadableError
        self._at += 1
        return Fraction(text)


def _sized(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise _UnreadableError
    return value


def _raised(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise _UnreadableError
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(base) != 1 and base != 0 and bits * abs(exponent.numerator) > 2 * MAX_BITS:
        raise _UnreadableError  # looked at before it is computed: the power itself would fill the memory
    if base == 0 and exponent == 0:
        raise _UnreadableError
    if abs(base) == 1:
        return base if exponent.numerator % 2 else base * base
    if base == 0 and exponent > 0:
        return base
    return _sized(base**exponent.numerator)


def _binomial(top: Fraction, low: Fraction) -> Fraction:
    if top.denominator != 1 or low.denominator != 1 or not 0 <= low <= top <= MAX_FACTORIAL:
        raise _UnreadableError
    return Fraction(math.comb(top.numerator, low.numerator))
