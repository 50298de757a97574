"""Knows which language a problem's words are in; formulas, code of figures and single letters are no words.

py3langid is used: it needs numpy only, its model is 0.7 MB in the package (a pickle that ships with it, nothing is
fetched), and it is sure of a sentence of five words. Larger ones (lingua, fastText) weigh over 100 MB or fetch a model.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from cures_core.errors import ConfigError, MissingExtra
from cures_core.prompts.defects import Flaw

MIN_BYTES = 20
"""Fewer bytes of words say nothing about the language (a Chinese character has three)."""
SURE = 0.9
"""Probability from which a language is believed."""

_FORMULA = re.compile(
    r"\[asy\].*?\[/asy\]|\$\$.*?\$\$|\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]|\\begin\{.*?\\end\{[a-z*]+\}|\\[A-Za-z]+",
    re.DOTALL,
)
_WORD = re.compile(r"[^\W\d_]+")


def require_language(code: str) -> None:
    """Raises `ConfigError` for a code that is not known, `MissingExtra` without py3langid."""
    known = sorted(str(label) for label in _identifier().nb_classes)
    if code not in known:
        raise ConfigError(f"language = {code!r}: known are {', '.join(known)}")


def other_language(problem: str, wanted: str) -> Flaw | None:
    """A flaw where the problem is certainly not in the language `wanted` (ISO 639-1); None in doubt."""
    words = _WORD.findall(_FORMULA.sub(" ", problem))
    text = " ".join(word for word in words if len(word) > 1 or not word.isascii())
    if len(text.encode("utf-8", "replace")) < MIN_BYTES:
        return None
    found, probability = _identifier().classify(text)
    if found == wanted or probability < SURE:
        return None
    return "other_language", f"{found}, not {wanted}"


@functools.cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise MissingExtra("a language check needs py3langid: pip install py3langid") from error
    return LanguageIdentifier.from_pickled_model(MODEL_FILE, norm_probs=True)
