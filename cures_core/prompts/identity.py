"""Knows what makes two prompts the same: problem and answer, byte for byte after Unicode normalisation (NFC)."""

from __future__ import annotations

import hashlib
import unicodedata

from cures_core.errors import DataRejected
from cures_core.terms import Prompt

ID_VERSION = "cures-prompt-1"
"""Part of every id. Posteriors are keyed by id: a new version would forget all of them."""

ID_HEX = 32


def content_id(problem: str, answer: str) -> str:
    """First 32 hex digits of SHA-256 over the version, both UTF-8 lengths in decimal, and both NFC texts.

    The exact bytes are `cures-prompt-1\\n<len p> <len a>\\n<p><a>`; with the lengths no two pairs share them. Source,
    level and subject are labels, not content. Raises `DataRejected` for text that UTF-8 cannot hold (lone surrogates).
    """
    try:
        p, a = nfc(problem).encode(), nfc(answer).encode()
    except UnicodeEncodeError as error:
        raise DataRejected(f"a prompt holds a lone surrogate, which is not text: {ascii(problem)[:120]}") from error
    return hashlib.sha256(b"cures-prompt-1\n%d %d\n%b%b" % (len(p), len(a), p, a)).hexdigest()[:ID_HEX]


def nfc(text: str) -> str:
    """The text in Unicode normal form C; ASCII is returned as it is."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def make_prompt(problem: str, answer: str, source: str = "", level: str = "", subject: str = "") -> Prompt:
    """A prompt under its content id."""
    problem, answer = nfc(problem), nfc(answer)
    return Prompt(content_id(problem, answer), problem, answer, source, level, subject)
