"""Knows what makes two prompts the same: problem and answer, byte for byte after Unicode normalisation (NFC)."""

from __future__ import annotations

import hashlib
import unicodedata

from cures_core.errors import DataRejected
from cures_core.prompts.chats import written
from cures_core.terms import Prompt, Turns

_VERSION = b"cures-prompt-1"
"""Part of every id. Posteriors are keyed by id: a new version would forget all of them."""

ID_HEX = 32


def content_id(problem: str, answer: str, turns: str = "") -> str:
    """First 32 hex digits of SHA-256 over the version, both UTF-8 lengths in decimal, and both NFC texts.

    The exact bytes are `cures-prompt-1\\n<len p> <len a>\\n<p><a>`; with the lengths no two pairs share them. Earlier
    turns (`chats.written`) are content too: `cures-prompt-1 chat\\n<len t> <len p> <len a>\\n<t><p><a>`. Source, level
    and subject are labels. Raises `DataRejected` for text that UTF-8 cannot hold (lone surrogates).
    """
    try:
        p, a, t = nfc(problem).encode(), nfc(answer).encode(), nfc(turns).encode()
    except UnicodeEncodeError as error:
        raise DataRejected(f"a prompt holds a lone surrogate, which is not text: {ascii(problem)[:120]}") from error
    if t:
        content = b"%b chat\n%d %d %d\n%b%b%b" % (_VERSION, len(t), len(p), len(a), t, p, a)
    else:
        content = b"%b\n%d %d\n%b%b" % (_VERSION, len(p), len(a), p, a)
    return hashlib.sha256(content).hexdigest()[:ID_HEX]


def nfc(text: str) -> str:
    """The text in Unicode normal form C; ASCII is returned as it is."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def make_prompt(
    problem: str, answer: str, source: str = "", level: str = "", subject: str = "", *, turns: Turns = ()
) -> Prompt:
    """A prompt under its content id."""
    problem, answer = nfc(problem), nfc(answer)
    turns = tuple((role, nfc(text)) for role, text in turns)
    return Prompt(content_id(problem, answer, written(turns)), problem, answer, source, level, subject, turns=turns)
