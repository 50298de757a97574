"""Knows of two parsed formulas whether they surely differ, where they are numbers such as \\sqrt{2} + \\pi.

math-verify takes numbers for equal whose difference vanishes in its 15 digits. Here a difference is evaluated until two
of its digits are certain, or until `MAX_DIGITS` have cancelled: numbers that agree so far are taken for equal.
"""

from __future__ import annotations

from fractions import Fraction

from sympy import (
    Add,
    Eq,
    Expr,
    FiniteSet,
    Float,
    I,
    Interval,
    MatrixBase,
    Mul,
    NumberSymbol,
    Pow,
    Rational,
    Symbol,
    Tuple,
    preorder_traversal,
)

from cures_core.rewards.arithmetic import long_decimal

MAX_DIGITS = 200
"""Digits that a difference may lose before it counts as none."""


def surely_differ(left: object, right: object) -> bool:
    """True if two numbers, or the numbers in two tuples, intervals, matrices or sets, are different beyond doubt."""
    left, right = _bare(left), _bare(right)
    if isinstance(left, FiniteSet) and isinstance(right, FiniteSet):
        return any(
            all(surely_differ(item, other) for other in theirs)
            for ours, theirs in ((left, right), (right, left))
            for item in ours
        )
    for kind in (Tuple, Interval, MatrixBase):
        if isinstance(left, kind) and isinstance(right, kind):
            ours, theirs = _items(left), _items(right)
            return len(ours) == len(theirs) and any(map(surely_differ, ours, theirs))
    if not isinstance(left, Expr) or not isinstance(right, Expr):
        return False
    if left.free_symbols or right.free_symbols:
        return _is_algebraic(left) and _is_algebraic(right) and _apart(*_at_a_point(left, right))
    return _is_constant(left) and _is_constant(right) and _apart(left, right)


def spelled_out(left: object, right: object, left_latex: str, right_latex: str) -> bool:
    """True if one of two real numbers is written as a long decimal that spells the other one."""
    return _spells(left_latex, right) or _spells(right_latex, left)


def _spells(latex: str, number: object) -> bool:
    decimal, number = long_decimal(latex), _bare(number)
    if decimal is None or not _is_constant(number) or not number.is_real:  # type: ignore[attr-defined]
        return False
    value, tolerance = map(_rational, decimal)
    return bool(abs((number - value).evalf(20, maxn=MAX_DIGITS)) < tolerance)


def _apart(left: Expr, right: Expr) -> bool:
    parts = (left - right).evalf(2, maxn=MAX_DIGITS).as_real_imag()
    # A part that cancels to the last digit has a precision of one bit: nothing is known of it.
    return any(isinstance(part, Float) and part._prec > 1 and part != 0 for part in parts)


def _at_a_point(left: Expr, right: Expr) -> tuple[Expr, Expr]:
    """Both with numbers above 1 for their symbols: equal formulas have equal values there."""
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    point = {symbol: Rational(7 * i + 9, 5) for i, symbol in enumerate(symbols)}
    return left.subs(point), right.subs(point)


def _is_algebraic(item: Expr) -> bool:
    """Sums, products and powers with rational exponents: what means the same wherever it is evaluated."""
    kinds = (Add, Mul, Symbol, Rational, NumberSymbol, type(I))
    return all(
        isinstance(part, kinds) or (isinstance(part, Pow) and isinstance(part.exp, Rational))
        for part in preorder_traversal(item)
    )


def _is_constant(item: object) -> bool:
    return isinstance(item, Expr) and bool(item.is_number) and bool(item.is_finite) and not item.has(Float)


def _bare(item: object) -> object:
    """The right side of x = 5."""
    return item.rhs if isinstance(item, Eq) and isinstance(item.lhs, Symbol) else item


def _rational(value: Fraction) -> Rational:
    return Rational(value.numerator, value.denominator)


def _items(collection: object) -> list[object]:
    if isinstance(collection, Interval):
        return [collection.start, collection.end]
    return list(collection)  # type: ignore[call-overload, no-any-return]
