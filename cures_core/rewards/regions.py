"""Knows the set that an answer made of inequalities stands for: "x < 1 or x > 2" is two rays."""

from __future__ import annotations

import re

from sympy import And, Basic, Eq, FiniteSet, Intersection, Set, Union
from sympy.core.relational import Relational

_JOINED = re.compile(r"(?<![A-Za-z])(or|and)(?![A-Za-z])")


def as_regions(left: Basic, right: Basic, left_latex: str, right_latex: str) -> tuple[Basic, Basic]:
    """Two parsed answers, inequalities (one, a chain, or several joined by "or" or by "and") as the set they stand for,
    where the other side is a set.

    The parser makes a list of them whatever joins them; a comma can mean either, so such a list stays one.
    """
    return _region(left, left_latex, right), _region(right, right_latex, left)


def _region(item: Basic, latex: str, other: Basic) -> Basic:
    if not isinstance(other, Set) or isinstance(other, FiniteSet) or len(item.free_symbols) != 1:
        return item
    if isinstance(item, And | Relational) and not isinstance(item, Eq):
        return item.as_set()
    if not isinstance(item, FiniteSet):
        return item
    words = set(_JOINED.findall(latex))
    if len(words) != 1 or not all(isinstance(i, Relational) for i in item):
        return item
    return (Union if words == {"or"} else Intersection)(*(inequality.as_set() for inequality in item))
