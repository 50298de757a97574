"""Knows how a written answer becomes the LaTeX that is compared: layout, units and ASCII spellings put aside.

Only spellings that cannot change the value are touched. Removed: spacing and sizing commands, math delimiters, a full
stop or comma at the end, the degree sign, \\approx in front; by `formulas` also units behind a number.
Rewritten: dfrac, tfrac, \\frac12, ** and * of programs, words pi, sqrt, infinity, 1e5, the spellings of the empty set.
A lone (C) is the letter C.
"""

from __future__ import annotations

import re

from cures_core.rewards.plain import plain
from cures_core.rewards.units import is_certain, is_unit, joined, unit_name

_DROPPED = re.compile(
    r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|qquad|quad)(?![A-Za-z])"
    r"|(?<!\\)\\[!,;: ]|\\phantom\s*(?:\{[^{}]*\}|[^\s{}\\])|~"
)
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|emph|operatorname|rm)\s*\{([^{}]*)\}")
_TEXT_UNIT = re.compile(
    r"(?:(?<=[\d})])|(?<=\\pi)|(?<=\\pi ))\s*\\(?:text|textbf|textrm|mathrm|mbox)\s*\{\s*([^{}]*)\}"
    r"(?:\s*\^\s*\{?\d\}?)?$"
)
_CONJUNCTION = re.compile(r"\b(?:and|or|if|for|to|not|mod|choose)\b")
_WORD_UNIT = re.compile(r"(?:(?<=[\d}])|(?<=\\pi))\s+([A-Za-z]{2,}(?: [A-Za-z]+){0,3})$")
_WORDY = re.compile(
    r"[^\W\d_][^\W\d_'.,]*"
    r"(?:(?:[ ,.']+|(?<=[^\W\d_]{2})-(?=[^\W\d_]{2}))[^\W\d_]+)*"  # a hyphen, not a minus: p - q is no text
)
_PER_CENT = re.compile(r"(?<=[\d}])\s*\\?%")
_DECIMAL = re.compile(r"(?<![\d.])(\d{0,300})\.(\d{1,300})(?![\d.])")
_COMMAND = re.compile(r"\\(?:begin|end)\{[a-zA-Z]+\}|\\\\|\\[A-Za-z]+")
_LETTER = re.compile(rf"({_COMMAND.pattern})|([A-Z])")
_SPARE = tuple("\\" + name for name in ("xi", "zeta", "kappa", "chi", "eta", "tau", "nu", "iota", "mu", "rho", "psi"))
_BASED = re.compile(r"(\d+)\s*_\s*\{?\s*(\d+)\s*\}?")
_CHOICE = re.compile(r"\(?\s*([A-Za-z])\s*\)|([A-Za-z])\.|(?:[Oo]ption|[Cc]hoice)\s+\(?([A-J])\)?")
_EMPTY_SET = re.compile(r"\\\{\s*\\\}|\\O|Ø|(?:the )?(?:empty|null) set", re.IGNORECASE)
_COMPOUND_UNIT = re.compile(r"(?:(?<=[\d})])|(?<=\\pi))\s+([A-Za-z][A-Za-z0-9^{}/*. -]{1,40})$")
_REWRITTEN = (
    (re.compile(r"\\[dt]frac"), r"\\frac"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*(\\[A-Za-z]+|\w)\s*(\\[A-Za-z]+|\w)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\\(?:lor|vee)(?![A-Za-z])"), r"\\text{ or }"),
    (re.compile(r"\\varnothing(?![A-Za-z])"), r"\\emptyset"),
    (re.compile(r"\\(?:ge|le)q(?![A-Za-z])"), lambda m: m.group()[:-1]),
    (re.compile(r"(?<![\\A-Za-z])(pi|theta|alpha|beta|sqrt|ln|log|sin|cos|tan)(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"(?<![\\A-Za-z])(?:infinity|infty|oo)(?![A-Za-z])", re.IGNORECASE), r"\\infty "),
    (re.compile(r"\\sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\^\(([^()]*)\)"), r"^{\1}"),
    (re.compile(r"(?<=\d)\s*(?:percent|percentage|pct)(?![A-Za-z])"), r"\\%"),
    (re.compile(r"\*"), r"\\cdot "),
    (re.compile(r"(?<![\w.\\])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?!\w)"), r"\1\\cdot 10^{\2}"),
    (re.compile(r"(?<=\d)\.(?![\d.]|\s*\\overline)"), ""),
    (re.compile(r"(?<=[\d}])i(?![A-Za-z])"), " i"),
    (re.compile(r"\\mathrm\s*\{i\}|\\text\s*\{i\}"), " i "),
)


def tidy(text: str) -> str:
    """The answer as LaTeX without layout. Text stays text: \\text{even} is kept as it is."""
    latex = _undelimited(plain(text)).replace("{,}", ",").replace("\\!", "")
    latex = " ".join(_DROPPED.sub(" ", latex).split())
    latex = re.sub(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree", "", latex)
    latex = joined(re.sub(r"^\\approx\s*", "", latex.rstrip(" .,;")))
    flat = " ".join(_TEXT.sub(r"\1", latex).strip("$ ").split())
    if choice := _CHOICE.fullmatch(flat):
        return choice[1] or choice[2] or choice[3]
    if _EMPTY_SET.fullmatch(flat):
        return r"\emptyset"
    for pattern, replacement in _REWRITTEN:
        latex = pattern.sub(replacement, latex)
    return _named_unit(" ".join(latex.split()))


def formulas(gold: str, answer: str) -> tuple[str, str]:
    """Two tidied answers as the parser gets them: no unit, no sign of money, decimals and per cent as fractions
    (exact, not floats).

    The parser folds case, so R^2-r^2 would be 0: a capital that meets its small letter becomes an unused Greek letter.
    """
    pair = _formula(gold), _formula(answer)
    both = _COMMAND.sub(" ", " ".join(pair))
    capitals = sorted({c for c in both if c.isascii() and c.isupper() and c.lower() in both})
    unused = [name for name in _SPARE if not any(name in latex for latex in pair)]
    renamed = dict(zip(capitals, unused, strict=False))
    left, right = (_LETTER.sub(lambda m: m[1] or f"{renamed.get(m[2], m[2])} ", latex) for latex in pair)
    return (left, right) if renamed else pair


def _formula(latex: str) -> str:
    bare = _without_unit(latex).replace(r"\$", "")
    exact = _DECIMAL.sub(lambda m: rf"\frac{{{int(m[1] + m[2])}}}{{1{'0' * len(m[2])}}}", bare)
    return _PER_CENT.sub(r"\\cdot \\frac{1}{100} ", exact)


def same_base(left: str, right: str) -> bool | None:
    """Whether two numbers with a base as subscript are the same; None where one has no base."""
    a, b = _BASED.fullmatch(left), _BASED.fullmatch(right)
    return None if a is None or b is None else a.groups() == b.groups()


def key(latex: str) -> str:
    """What two tidied answers share if they are the same text: white space between symbols does not count."""
    return re.sub(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])", "", _TEXT.sub(r" \1 ", latex).strip()).strip()


def words(latex: str) -> str | None:
    """The answer in lower case if it is text (even, no solution, 05:00), None if it is a formula."""
    if re.fullmatch(r"0\d:\d\d|\d{1,2}:00", latex):
        return latex.lstrip("0")
    stripped = " ".join(_TEXT.sub(r" \1 ", latex).split())
    wordy = _WORDY.fullmatch(stripped)
    if wordy is None or (len(stripped) < 3 and stripped == latex):
        return None
    return re.sub(r"[ \-,.']+", " ", stripped).casefold()


def _undelimited(text: str) -> str:
    """Without $ $, $$ $$, \\( \\), \\[ \\] and surplus braces around the whole."""
    text = text.strip().rstrip(".").strip()
    for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**")):
        inner = text.removeprefix(opening).removesuffix(closing)
        if len(text) - len(inner) == 2 * len(opening) and opening not in inner:
            text = inner.strip()
    while text.startswith("{") and text.endswith("}") and _one_group(text):
        text = text[1:-1].strip()
    if text.startswith("$") and text.count("$") == 1:
        text = "\\" + text
    return re.sub(r"(?<!\\)\$", "", text).replace(r"\boxed", "").strip()


def _one_group(text: str) -> bool:
    depth = 0
    for i, char in enumerate(text):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth == 0:
            return i == len(text) - 1
    return False


def _named_unit(latex: str) -> str:
    """A one-letter unit in \\text{} behind a number, spelt out: m in 5\\text{ m} is no variable."""
    unit = _TEXT_UNIT.search(latex)
    if unit is not None and len(unit[1].strip()) == 1 and unit_name(unit[1].strip()):
        return f"{latex[: unit.start()].strip()} {unit_name(unit[1].strip())}"
    return latex


def _without_unit(latex: str) -> str:
    """Without a unit behind a number or closed group; words that join (and, or) are no units."""
    unit = _TEXT_UNIT.search(latex)
    if unit is not None and not _CONJUNCTION.search(unit[1]):
        return latex[: unit.start()].strip()
    for pattern, is_one in ((_WORD_UNIT, is_unit), (_COMPOUND_UNIT, is_certain)):
        unit = pattern.search(latex)
        if unit is not None and is_one(unit[1]):
            return latex[: unit.start()].strip()
    return latex
