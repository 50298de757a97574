"""Knows when two texts say the same: spelling, spacing and sentence punctuation go, numbers and operators stay."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_UNICODE = str.maketrans(
    {
        "‘": "'", "’": "'", "“": '"', "”": '"', "′": "'", "″": '"', "–": "-", "—": "-", "−": "-", "‐": "-", "‑": "-",
        "×": " \\times ", "÷": " \\div ", "·": " \\cdot ", "⋅": " \\cdot ", "≤": " \\le ", "≥": " \\ge ", "≠": " \\ne ",
        "√": " \\sqrt ", "π": " \\pi ", "∞": " \\infty ", "…": " \\dots ", "⋯": " \\dots ", "°": "^\\circ ",
        "\u200b": None, "\u2060": None, "\ufeff": None, "\u00ad": None,
    }
)  # fmt: skip
_SPACING = re.compile(
    r"\\[,;:!> ]|~|\\(?:quad|qquad|thinspace|medspace|thickspace|left|right|bigl|bigr|big)(?![a-z])"
    r"|\\(?:displaystyle|textstyle|limits)(?![a-z])"
    r"|\\[hv]space\*?\{[^{}]*\}|\\[()\[\]]|\$"
)
_SYNONYM = re.compile(r"\\(dfrac|tfrac|cfrac|leq|geq|neq|cdots|ldots|dotsc|dotsb|lvert|rvert|vert|mid|to)(?![a-z])")
_SAME = {
    "dfrac": "\\frac", "tfrac": "\\frac", "cfrac": "\\frac", "leq": "\\le", "geq": "\\ge", "neq": "\\ne",
    "cdots": "\\dots", "ldots": "\\dots", "dotsc": "\\dots", "dotsb": "\\dots",
    "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "to": "\\rightarrow",
}  # fmt: skip
_FONT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|operatorname|mbox|emph)\s*\{([^{}]*)\}")
_LONE = re.compile(r"\{\s*(\w)\s*\}")
_QUOTES = str.maketrans(dict.fromkeys(";:?\"'`", " "))
# A pattern that starts with the characters it can begin with lets `re` skip to them: several times faster.
_PUNCTUATION = re.compile(
    r"[.,!\-](?:(?<=\.)(?!\d)|(?<=,)(?:(?!\d)|(?<!\d.))"  # not inside a number
    r"|(?<=!)(?:(?<![\d)\]}a-z].)|(?<=[a-z]{2}.))"  # not a factorial
    r"|(?<=[a-z\d]-)(?=[a-z]{2}))"  # a hyphen, not a minus
)
_TIGHT = re.compile(r" (?:(?=[^\w ])|(?<=[^\w ] ))")
_WHITE = re.compile(r"\s+")
_LATEX_TRIGGER = re.compile(r"[\\$~{]")


def canonical(text: str) -> str:
    """The text without what an editor may change without changing the problem.

    Case, Unicode forms (NFKC, typographic quotes, dashes and operators), LaTeX spacing, sizes, delimiters, fonts and
    synonyms, sentence punctuation and white space go. Digits, number words, operators, parentheses and the letters of
    formulas stay: `88/(4/2)` and `88/4/2` differ.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_UNICODE)).translate(_UNICODE)
    text = text.lower()
    if _LATEX_TRIGGER.search(text):
        text = _SPACING.sub(" ", text)
        text = _SYNONYM.sub(lambda m: _SAME[m[1]], text)
        text = _LONE.sub(r"\1", _FONT.sub(r" \1 ", text))
    text = _PUNCTUATION.sub(" ", text.translate(_QUOTES))
    return _TIGHT.sub("", " ".join(text.split()))


_NOT_ALNUM = bytes(i for i in range(128) if not chr(i).isalnum())
_COARSE = [(f"\\{name}", meant) for name, meant in _SAME.items()] + [
    (f"\\{name}", "")
    for name in ("left", "right", "bigl", "bigr", "big", "displaystyle", "textstyle", "limits", "qquad", "quad",
                 "thinspace", "textbf", "textit", "text", "mathrm", "mathbf", "operatorname", "mbox", "emph")
]  # fmt: skip


def coarse(text: str) -> bytes:
    """Letters and digits only: a cheap key that texts of equal `canonical` form share, and others rarely.

    Rare LaTeX (`\\hspace{1cm}`) can part two texts that `canonical` joins.
    """
    if not text.isascii():
        text = canonical(text)
    text = text.lower()
    if "\\" in text:
        for command, meant in _COARSE:
            if command in text:
                text = text.replace(command, meant)
    return text.encode("utf-8", "surrogatepass").translate(None, _NOT_ALNUM)


_TOKEN = re.compile(r"\\?[^\W\d_]+|\d+(?:[.,]\d+)*|\S")


def tokens(canonical_text: str) -> list[str]:
    """Words, LaTeX commands, numbers and single operators of a canonical text."""
    return _TOKEN.findall(canonical_text)


_LONGEST_ANSWER = 1000
_NUMBER = re.compile(r"([+-]?)(\d[\d,]*)?(\.\d+)?")
_IN_PARENTHESES = re.compile(r"\A\((\w+)\)\Z")
_FRACTION = re.compile(r"([+-]?)(?:\\frac\{?(\d+)\}?\{?(\d+)\}?|(\d+)/(\d+))")


def answer_key(answer: str) -> str:
    """A key that answers of equal value share, where that can be seen without algebra: 097 and 97, 1,000 and 1000.0."""
    if len(answer) < 20 and answer.isdecimal():
        return f"n:{int(answer)}"
    if len(answer) > _LONGEST_ANSWER:
        return f"t:{answer}"
    text = _SPACING.sub("", answer.strip().rstrip(".").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac"))
    text = _WHITE.sub("", _FONT.sub(r"\1", text))
    text = _IN_PARENTHESES.sub(r"\1", text)
    if (m := _NUMBER.fullmatch(text)) and (m[2] or m[3]):
        return f"n:{Fraction(m[1] + (m[2] or '0').replace(',', '') + (m[3] or ''))}"
    if (m := _FRACTION.fullmatch(text)) and int(m[3] or m[5]):
        return f"n:{Fraction(m[1] + (m[2] or m[4])) / int(m[3] or m[5])}"
    return f"t:{text.lower()}"
