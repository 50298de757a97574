"""Knows an option of a multiple-choice question as answers write it: its letter, and the text behind it."""

from __future__ import annotations

import re
from typing import NamedTuple

_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|emph|rm)\s*\{([^{}]*)\}")
_OPTION = re.compile(
    r"(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s*)?"
    r"(?:\(\s*(?P<braced>[A-J])\s*\)(?:\s*[.:]|(?=[\s\d\\$-]))|(?P<marked>[A-J])\s*(?:[):]|\.(?=\s)))\s*(?P<text>\S.*)",
    re.DOTALL,
)
_ANOTHER = re.compile(r"(?<![A-Za-z])(?:\([A-J]\)|[A-J](?:[):]|\.(?=\s|$)))|^(?:[,;/&|]|and\b|or\b)|\b[A-J]\s*$")


class Option(NamedTuple):
    """`B. 42`: the letter B with the text 42."""

    letter: str
    text: str


def read_option(latex: str) -> Option | None:
    """The option that a tidied answer names with its text; None for a bare letter, for several options, for no option.

    A letter from A to J in parentheses, or with a parenthesis, a colon, or a full stop and a space behind it.
    """
    match = _OPTION.fullmatch(" ".join(_TEXT.sub(r"\1", latex).split()))
    if match is None or _ANOTHER.search(match["text"]):
        return None
    return Option(match["braced"] or match["marked"], match["text"])


def compared(gold: str, answer: str) -> tuple[str, str]:
    """What is compared of two tidied answers: the letters where both have one, else an option's text with the other."""
    wanted, given = read_option(gold), read_option(answer)
    if wanted and (given or _is_letter(answer)):
        return wanted.letter, given.letter if given else answer
    if wanted:
        return wanted.text, answer
    if given and _is_letter(gold):
        return gold, given.letter
    if given and not re.search(r"[A-J]", gold):
        return gold, given.text
    return gold, answer


def _is_letter(latex: str) -> bool:
    return len(latex) == 1 and "A" <= latex <= "J"
