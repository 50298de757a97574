"""Knows which language a problem's words are in; formulas, code of figures and single letters are no words.

py3langid is used: it needs numpy only, its model is 0.7 MB in the package (nothing is fetched), and it is sure of a
sentence of five words. Larger ones (lingua, fastText) weigh over 100 MB or fetch a model. Its model is a pickle, of
which only data is read here: not what could run.
"""

from __future__ import annotations

import functools
import lzma
import pickle  # noqa: TID251 (read by `_DataOnly`, which finds no code)
import re
from pathlib import Path
from typing import IO, Any

import numpy as np

from cures_core.errors import ConfigError, CorruptArtifact
from cures_core.extras import missing_extra
from cures_core.prompts.defects import Flaw

MIN_BYTES = 20
"""Fewer bytes of words say nothing about the language (a Chinese character has three)."""
SURE = 0.9
"""Probability from which a language is believed."""

_FORMULA = re.compile(
    r"\[asy\].*?\[/asy\]|\$\$.*?\$\$|\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]|\\begin\{.*?\\end\{[a-z*]+\}|\\[A-Za-z]+",
    re.DOTALL,
)
_ARRAYS = {("array", "array"), ("array", "_array_reconstructor")}
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
        from py3langid import langid
    except ImportError as error:
        raise missing_extra("pipeline", "a language check", error) from error
    with lzma.open(Path(langid.__file__).parent / langid.MODEL_FILE) as packed:
        features, classes, labels, moves, outputs = read_data(packed)
    table = np.array(features).reshape(-1, len(classes))
    return langid.LanguageIdentifier(table, np.array(classes), len(table), labels, moves, outputs, norm_probs=True)


def read_data(stream: IO[bytes]) -> Any:
    """What a pickle holds, if that is numbers and texts in lists, dictionaries and arrays; `CorruptArtifact` if not."""
    try:
        return _DataOnly(stream).load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise CorruptArtifact(f"the model of py3langid is not one of data alone ({error}); install it again") from error


class _DataOnly(pickle.Unpickler):
    """Finds no classes or functions, and so runs none, but for those that make an array of numbers."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)
