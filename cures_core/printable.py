"""Texts that nobody vouches for, made safe to show: what would move a cursor or turn a line around is written out."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """Control, format, private and surrogate characters are written as <U+XXXX>; line breaks and tabs stay."""
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else f"<U+{ord(c):04X}>" for c in text)


def one_line(text: str) -> str:
    """`printable` with runs of white space as one space."""
    return printable(" ".join(text.split()))
