"""Knows what counts as a number, and when two numbers are equal: exactly, as fractions, never as floats.

Read: signs, thousands separators (1,234 and 1 234 and 1{,}234), decimals, repeating decimals (0.\\overline{3}),
fractions (3/4, \\frac{3}{4}), mixed numbers (1 1/2), scientific notation (1.2e3, 1.2 \\times 10^3), money ($5,
5 dollars), percent, scale words (5 million, 2 dozen) and units (5 cm, 60 km/h, 12 eggs). Not read: 1,23 and 12,34,567,
because nobody can say what they mean.

A percent sign or scale word is a factor, and next to a bare number also a mere unit: 50% equals 0.5, 50 and 50%, but
not "50 dollars". Known units of different names (5 cm, 5 m) differ; all other units are ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from cures_core.rewards.arithmetic import is_spelled, tolerance_of
from cures_core.rewards.plain import plain
from cures_core.rewards.units import SCALES, compound_name, is_certain, is_unit, joined, unit_name

MAX_NUMBER_CHARS = 300
"""Longest text taken for a number, in characters."""
MAX_EXPONENT = 1000
"""Largest absolute power of ten read: 1e999999999 would fill the memory."""
TAIL_CHARS = 4000
"""How much of a completion's end is searched for its last number, in characters."""

_INT = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?:[ _]\d{3})+|\d+)"
_DEC = rf"(?:{_INT}(?:\.\d+)?|\.\d+)"
_POWER = r"(?:\\times|\\cdot|[x*])\s*10\s*(?:\^|\*\*)\s*(?:\{\s*(?P<braced>[+-]?\d+)\s*\}|\(?(?P<power>[+-]?\d+)\)?)"
_LATEX = (
    rf"\\[dt]?frac\s*(?:\{{\s*(?P<top>[+-]?\s*{_DEC})\s*\}}|(?P<top1>\d))"
    rf"\s*(?:\{{\s*(?P<low>{_DEC})\s*\}}|(?P<low1>\d))"
)
_VALUE = (
    rf"(?:(?P<whole>\d+)\s+(?P<over>\d+)\s*/\s*(?P<under>\d+)"
    rf"|(?P<whole2>\d+)?\s*{_LATEX}"
    rf"|(?P<num>{_DEC})\s*/\s*(?P<den>{_DEC})"
    r"|(?P<lead>\d*)\.(?P<fixed>\d*)\\overline\s*\{(?P<period>\d{1,20})\}"
    rf"|(?P<dec>{_DEC})(?:[eE](?P<exp>[+-]?\d+)|\s*{_POWER})?"
    rf"|10\s*\^\s*(?:\{{\s*(?P<ten>[+-]?\d+)\s*\}}|(?P<ten1>\d+)))"
)
_MONEY = r"(?P<money>[$€£¥₹]?)"
_QUANTITY = re.compile(rf"(?P<sign>[+-]?)\s*{_MONEY}\s*(?P<sign2>[+-]?)\s*{_VALUE}\s*(?P<unit>.*)", re.DOTALL)
_TOKEN = re.compile(
    rf"(?<![\d.,\w)}}])-?(?:\\?[$€£¥₹]\s?)?{_DEC}(?:\s?/\s?{_DEC}|[eE][+-]?\d+)?"
    r"(?:\s?\\?%|\s(?:percent|hundred|thousand|million|billion|trillion|dozen|cents?)\b)?"
    rf"|-?(?:\d+\s*)?\\[dt]?frac\s*\{{-?{_DEC}\}}\s*\{{{_DEC}\}}"
    rf"|(?<=[\w)}}]){_DEC}(?!\w)"
)
_UNIT = re.compile(r"[A-Za-z'%¢€$£\"][A-Za-z'%/.,^\d\s{}()*\"-]*")
_WRAPPERS = re.compile(r"(?<!\\)\\(?:(?:left|right|displaystyle)(?![A-Za-z])|[!,;:> ])|~")
_LETTERS = re.compile(r"[A-Za-z]+(?: [A-Za-z]+){0,4}")
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox|operatorname)\s*\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Quantity:
    """`value` as written, the factor a percent sign or scale word stands for (None: no such word), and a known unit.

    `tolerance` is that of a decimal of 12 or more significant digits (`arithmetic.tolerance_of`), None for others: such
    a decimal also equals the number without a finite decimal that it spells.
    """

    value: Fraction
    factor: Fraction | None = None
    unit: str = ""
    tolerance: Fraction | None = None

    def equals(self, other: Quantity) -> bool:
        if self.unit and other.unit and self.unit != other.unit:
            return False
        if self._scaled == other._scaled:
            return True
        if (self.factor is None) == (other.factor is None):
            return self.factor == other.factor and (self._spells(other) or other._spells(self))
        bare = self if self.factor is None else other
        return self.value == other.value and not bare.unit

    def _spells(self, other: Quantity) -> bool:
        return self.tolerance is not None and is_spelled(other.value, self.value, self.tolerance)

    @property
    def _scaled(self) -> Fraction:
        return self.value * (1 if self.factor is None else self.factor)


def parse_quantity(text: str, units: bool = True) -> Quantity | None:
    """The number that `text` is, or None if it is something else. `units`: anything that starts like a unit may follow.

    Without `units` only a percent sign, a sign of money, scale words, words that `is_unit` accepts, and quotients and
    powers of known units (5 m^2, but not 5m^2) are taken, so 5x, 5 m and 5abc stay formulas.
    """
    if len(text) > MAX_NUMBER_CHARS:
        return None
    match = _QUANTITY.fullmatch(_bare(text))
    if match is None or (match["sign"] and match["sign2"]):
        return None
    value = _value(match)
    rest = match["unit"]
    spaced = match.string[match.start("unit") - 1] == " "
    if rest not in ("", "%") and not units and not _certain_unit(rest, spaced):
        return None
    named = _factor_and_unit(match["money"], rest)
    if value is None or named is None:
        return None
    return Quantity(-value if "-" in (match["sign"], match["sign2"]) else value, *named, _tolerance(match))


def last_number(text: str) -> str | None:
    """The last number written in the end of `text` (its last 4,000 characters), sign, money and percent with it."""
    last = None
    for last in _TOKEN.finditer(plain(text[-TAIL_CHARS:])):  # noqa: B007
        pass
    return None if last is None else last.group().strip()


def _bare(text: str) -> str:
    """Without math delimiters, spacing commands, text commands and a full stop at the end."""
    text = plain(text).replace("{,}", ",").replace(r"\%", "%").replace(r"\$", "$ ")
    text = _TEXT.sub(r" \1 ", joined(_WRAPPERS.sub("", text).strip().rstrip("."))).strip()
    if len(text) > 1 and text[0] == text[-1] == "$":
        text = text.strip("$").strip()
    text = text.rstrip(".").rstrip()
    while text.startswith("{") and text.endswith("}"):
        text = text[1:-1].strip()
    return text


def _value(match: re.Match[str]) -> Fraction | None:
    if match["under"]:
        return _ratio(match["over"], match["under"], match["whole"])
    if low := match["low"] or match["low1"]:
        return _ratio(match["top"] or match["top1"], low, match["whole2"])
    if match["den"]:
        return _ratio(match["num"], match["den"], None)
    if match["period"]:
        return _repeating(match["lead"], match["fixed"], match["period"])
    if ten := match["ten"] or match["ten1"]:
        return _power(ten)
    scale = _scale(match)
    return None if scale is None else _decimal(match["dec"]) * scale


def _ratio(top: str, low: str, whole: str | None) -> Fraction | None:
    divisor = _decimal(low)
    if divisor == 0 or (whole and "-" in top):
        return None
    return _decimal(whole or "0") + _decimal(top) / divisor


def _repeating(lead: str, fixed: str, period: str) -> Fraction:
    """lead.fixed(period)(period)...: 0.1\\overline{6} is 1/6."""
    tail = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
    return Fraction(int((lead or "0") + fixed), 10 ** len(fixed)) + tail


def _decimal(text: str) -> Fraction:
    return Fraction(re.sub(r"[,_ +]", "", text))


def _scale(match: re.Match[str]) -> Fraction | None:
    """The power of ten behind a decimal."""
    return _power(match["exp"] or match["braced"] or match["power"] or "0")


def _tolerance(match: re.Match[str]) -> Fraction | None:
    whole, point, places = (match["dec"] or "").rpartition(".")
    tolerance = tolerance_of(re.sub(r"\D", "", whole) + places, len(places)) if point else None
    scale = _scale(match)
    return None if tolerance is None or scale is None else tolerance * scale


def _power(exponent: str) -> Fraction | None:
    if len(exponent) > 5 or abs(int(exponent)) > MAX_EXPONENT:
        return None
    return Fraction(10) ** int(exponent)


def _certain_unit(rest: str, spaced: bool) -> bool:
    first = rest.split()[0]
    if compound_name(rest):
        return spaced or is_certain(rest)
    if not _LETTERS.fullmatch(rest):
        return rest == r"^\circ" or rest == "¢"
    return first.lower() in SCALES or (is_unit(rest) and (spaced or unit_name(first) != ""))


def _factor_and_unit(money: str, rest: str) -> tuple[Fraction | None, str] | None:
    """(factor, known unit) that the words behind a number stand for; None where they are no unit."""
    unit = unit_name(money)
    if rest == "":
        return None, unit
    if compound := compound_name(rest):
        return None, unit or compound
    if not (_UNIT.fullmatch(rest) or rest == r"^\circ"):
        return None
    first, *others = rest.replace("%", " % ").split()
    factor = SCALES.get(first.lower())
    if factor is None and len(first) == 1 and not unit_name(first):
        return None
    following = others[0] if factor is not None and others else first
    return factor, unit or unit_name(first) or unit_name(following)
