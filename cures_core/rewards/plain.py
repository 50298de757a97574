"""Knows how text is brought to plain characters before it is compared.

Unicode NFKC (full-width 7 becomes 7), with four corrections, because bare NFKC changes values:
superscripts become ^, subscripts _ (NFKC would make 10² into 102), vulgar fractions get a space in front
(NFKC would make 1½ into 11/2), and digits of all scripts become ASCII digits (NFKC leaves them).
Control and format characters (NUL, right-to-left marks, zero-width spaces) are dropped, dashes become minus.
"""

from __future__ import annotations

import unicodedata

_FIXED = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "‒": "-", "﹣": "-", "－": "-",
    "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/",
    "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ",
    "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "°": r"^\circ ",
    "’": "'", "′": "'", "‘": "'", "“": '"', "”": '"', "″": "''",
}  # fmt: skip


def plain(text: str) -> str:
    """`text` in plain characters, white space collapsed; see the module's first lines for the rules."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    return " ".join(unicodedata.normalize("NFC", "".join(_runs(text))).split())


def _runs(text: str) -> list[str]:
    """Characters translated; neighbouring superscripts share one ^{...}, so x¹⁰ is x^{10}."""
    out: list[str] = []
    script = ""  # "^" or "_" while such a run is open
    for char in text:
        mark = _script(char)
        if mark != script:
            out.append("}" if script else "")
            out.append(f"{mark}{{" if mark else "")
            script = mark
        out.append(_translated(char))
    return [*out, "}"] if script else out


def _script(char: str) -> str:
    tag = unicodedata.decomposition(char).partition(" ")[0]
    return "^" if tag == "<super>" else "_" if tag == "<sub>" else ""


def _translated(char: str) -> str:
    if char in _FIXED:
        return _FIXED[char]
    if char.isascii():
        return char if char.isprintable() else " " if char.isspace() else ""
    if char == "√":
        return r"\sqrt "
    if (digit := unicodedata.decimal(char, None)) is not None:
        return str(digit)
    if char.isspace():
        return " "
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn"):
        return ""
    folded = unicodedata.normalize("NFKC", char).replace("⁄", "/").replace("−", "-")
    return f" {folded} " if unicodedata.decomposition(char).startswith("<fraction>") else folded
