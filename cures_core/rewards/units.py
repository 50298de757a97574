"""Knows units: their names, their powers, and their products and quotients (km/h, m^2, N \\cdot m, miles per hour).

A known unit has one name whatever its spelling (km/h, kph, kilometers per hour). Words that are no known unit can still
stand where a unit does: 12 eggs.
"""

from __future__ import annotations

import re
from fractions import Fraction

SCALES = {
    **dict.fromkeys(("%", "percent", "percentage", "pct"), Fraction(1, 100)),
    **dict.fromkeys(("cent", "cents", "¢"), Fraction(1, 100)),
    "hundred": Fraction(100),
    "thousand": Fraction(1000),
    "million": Fraction(10**6),
    "billion": Fraction(10**9),
    "trillion": Fraction(10**12),
    **dict.fromkeys(("dozen", "dozens"), Fraction(12)),
}
_NAMES = {
    "dollar": "$ dollar dollars usd bucks cent cents ¢",
    "euro": "€ euro euros eur",
    "pound (money)": "£ gbp",
    "pound": "lb lbs pound pounds",
    "ounce": "oz ounce ounces",
    "meter": "m meter meters metre metres",
    "centimeter": "cm centimeter centimeters centimetre centimetres",
    "millimeter": "mm millimeter millimeters millimetre millimetres",
    "kilometer": "km kilometer kilometers kilometre kilometres",
    "inch": "in inch inches",
    "foot": "ft foot feet",
    "yard": "yd yard yards",
    "mile": "mi mile miles",
    "gram": "g gram grams",
    "kilogram": "kg kilogram kilograms",
    "second": "s sec secs second seconds",
    "minute": "min mins minute minutes",
    "hour": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years",
    "liter": "l L liter liters litre litres",
    "milliliter": "ml mL milliliter milliliters",
    "gallon": "gal gallon gallons",
    "degree": "degree degrees ^\\circ",
    "newton": "N newton newtons",
    "joule": "J joule joules",
    "watt": "W watt watts",
    "mole": "mol mole moles",
    "kelvin": "kelvin kelvins",
    "volt": "V volt volts",
}
_UNITS = {word: name for name, words in _NAMES.items() for word in words.split()}
_NO_UNITS = frozenset([
    "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "sqrt", "pi", "mod", "abs", "max", "min", "choose",
    "alpha", "beta", "gamma", "theta", "and", "or", "to", "if", "not", "times", "plus", "minus", "base", "for",
])  # fmt: skip
_MONEY = {"dollar", "euro", "pound (money)"}
_POWER = r"(?:\s*(?:\^|\*\*)\s*(?:\{\s*)?(?P<power>-?\d)(?:\s*\})?)?"
_FACTOR = re.compile(rf"(?P<area>square|sq\.?|cubic|cu\.?)?\s*(?P<name>[A-Za-z]+)\.?{_POWER}\s*")
_JOIN = re.compile(r"(?P<over>/|per\b)|\\cdot(?![A-Za-z])|\*|-(?=[A-Za-z])|")
_SHORT = {"mph": "hour^-1 mile", "kph": "hour^-1 kilometer", "kmh": "hour^-1 kilometer", "kmph": "hour^-1 kilometer"}
_AREA = {"sq": 2, "squ": 2, "cub": 3, "cu": 3}
_GROUP = (
    r"\\(?:text|textbf|textrm|mathrm|mbox|operatorname|rm)\s*\{\s*([A-Za-z][^{}]*?)\s*\}"
    r"(?:\s*\^\s*\{?\s*(-?\d)\s*\}?)?"
)
_BEFORE = r"(?:(?<=[\d})])|(?<=\\pi))"
_RUN = re.compile(rf"{_BEFORE}\s*(?:{_GROUP}\s*(?:/|\\cdot(?![A-Za-z]))?\s*)*{_GROUP}$")
_GROUPS = re.compile(_GROUP)
_RATIO = re.compile(rf"{_BEFORE}\s*\\[dt]?frac\s*\{{\s*{_GROUP}\s*\}}\s*\{{\s*{_GROUP}\s*\}}$")
_BARE_RATIO = re.compile(rf"{_BEFORE}\s*\\[dt]?frac\s*\{{\s*([A-Za-z]+)\s*\}}\s*\{{\s*([A-Za-z]+)\s*\}}$")
_CONJUNCTION = re.compile(r"\b(?:and|or|if|for|to|not|mod|choose)\b")


def is_unit(phrase: str) -> bool:
    """True if words behind a number can be ignored as its unit: no scale word, function, constant or short unknown."""
    first = phrase.split()[0]
    if first in _NO_UNITS or first.lower() in SCALES:
        return False
    return (unit_name(first) != "" and len(first) > 1) or len(first) > 2


def unit_name(word: str) -> str:
    """The known unit a word names, or nothing."""
    word = word.rstrip(".,")
    return _UNITS.get(word, _UNITS.get(word.lower(), "") if len(word) > 1 else "")


def compound_name(text: str) -> str:
    """The one name of a product, quotient or power of known units; nothing for anything else, a single unit among it.

    "hour^-1 kilometer" for km/h and kilometers per hour, "meter^2" for m^2 and square meters, the currency for dollars
    per hour.
    """
    text = text.strip()
    if short := _SHORT.get(text.lower()):
        return short
    powers: dict[str, int] = {}
    at, sign = 0, 1
    while match := _FACTOR.match(text, at):
        name = unit_name(match["name"])
        if not name or match["name"].lower() in SCALES or (match["area"] and match["power"]):
            return ""
        power = int(match["power"] or _AREA[match["area"].rstrip(".")[:3]] if match["area"] or match["power"] else 1)
        powers[name] = powers.get(name, 0) + sign * power
        at = match.end()
        join = _JOIN.match(text, at)
        assert join is not None
        if at == len(text):
            return "" if list(powers.values()) == [1] else _named(powers)
        sign = -1 if join["over"] else 1
        at = join.end() + len(text[join.end() :]) - len(text[join.end() :].lstrip())
    return ""


def _named(powers: dict[str, int]) -> str:
    if money := _MONEY & set(powers):
        return min(money)  # of a rate, 15 dollars per hour, the currency counts
    return " ".join(unit if power == 1 else f"{unit}^{power}" for unit, power in sorted(powers.items()))


def is_certain(text: str) -> bool:
    """True if a compound unit cannot be taken for a product of variables: it has a name of several letters."""
    return compound_name(text) != "" and any(len(word) > 1 for word in re.findall(r"[A-Za-z]+", text))


def joined(latex: str) -> str:
    """LaTeX with the unit behind its number in one \\text{}: 9.8 \\mathrm{m} / \\mathrm{s}^{2} ends in \\text{ m/s^2}.

    A fraction of bare letters, 60 \\frac{m}{s}, stays a formula; with names of several letters it is a unit.
    """
    if ratio := _RATIO.search(latex) or _BARE_RATIO.search(latex):
        parts = ratio.groups("")
        top, low = (parts[0] + _raised(parts[1]), parts[2] + _raised(parts[3])) if len(parts) == 4 else parts
        if len(parts) == 4 or is_certain(f"{top}/{low}"):
            return rf"{latex[: ratio.start()].rstrip()}\text{{ {top}/{low}}}"
    run = _RUN.search(latex)
    if run is None or _CONJUNCTION.search(run.group()) or (run[1] is None and run[4] is None):
        return latex  # no unit in text, or a lone one without a power
    unit = _GROUPS.sub(lambda m: m[1] + _raised(m[2]), run.group().strip()).replace(r"\cdot", "*")
    return rf"{latex[: run.start()].rstrip()}\text{{ {unit}}}"


def _raised(power: str | None) -> str:
    return f"^{power}" if power else ""
