"""Knows the passages that many texts of a set share word for word: instructions and templates around the problems.

They say nothing about where two texts come from, so overlap is looked for in what is left, the core.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cures_core.prompts.canonical import canonical, tokens

PASSAGE_WORDS = 8
"""Length of the passages that are counted; a longer one is found as its parts."""
MIN_WORDS = 4
"""Fewest real words of a passage; with a number in it, it is none either: formulas and givens are what problems are."""
MIN_TEXTS = 5
MIN_SHARE = 0.2
"""A passage is boilerplate from so many texts, and such a share of them, on: a few reworded copies of one problem make
none, and a set may join sources with templates of their own."""
SAMPLE = 2_000
"""Texts that are looked at, evenly spread over a set: their shares differ from the set's by a percent or so."""

Passage = tuple[str, ...]


def boilerplate(texts: Sequence[str]) -> frozenset[Passage]:
    """Passages of `PASSAGE_WORDS` words that many of the texts hold."""
    sample = [texts[i * len(texts) // SAMPLE] for i in range(SAMPLE)] if len(texts) > SAMPLE else texts
    counts: Counter[Passage] = Counter()
    for text in sample:
        counts.update(passage for passage in set(_passages(tokens(canonical(text)))) if _is_prose(passage))
    enough = max(MIN_TEXTS, MIN_SHARE * len(sample))
    return frozenset(passage for passage, number in counts.items() if number >= enough)


def divided(words: list[str], common: frozenset[Passage]) -> tuple[list[str], list[str]]:
    """(the core: words that are in no common passage, the others)."""
    found = [i for i, passage in enumerate(_passages(words)) if passage in common] if common else []
    if not found:
        return words, []
    covered = {place for start in found for place in range(start, start + PASSAGE_WORDS)}
    return [word for i, word in enumerate(words) if i not in covered], [words[i] for i in sorted(covered)]


def _is_prose(passage: Passage) -> bool:
    words = sum(len(word) > 1 and word.isalpha() for word in passage)
    return words >= MIN_WORDS and not any(word[0].isdigit() for word in passage)


def _passages(words: Sequence[str]) -> list[Passage]:
    return list(zip(*(words[i:] for i in range(PASSAGE_WORDS)), strict=False))
