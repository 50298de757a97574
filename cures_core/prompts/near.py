"""Knows near copies inside a set: the same problem in slightly other words, found by MinHash and then compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from cures_core.extras import missing_extra
from cures_core.prompts.canonical import canonical, tokens
from cures_core.prompts.overlap import is_prose

NEAR_SHARE = 0.7
"""Two problems are near copies from this share of common word triples (Jaccard) on."""

_LOOKED_UP = 0.6
"""Threshold of the index: below `NEAR_SHARE`, because MinHash only estimates."""
_PERMUTATIONS = 64
_AT_ONCE = 10_000


def near_copies(problems: Sequence[str]) -> Iterator[tuple[int, int, float]]:
    """(index, index of an earlier near copy, share of common word triples), in order.

    Near copies agree in every number, operator and LaTeX command; siblings with other numbers are none. Problems of
    fewer than six words are left out: their triples repeat by chance. Raises `MissingExtra` without datasketch.
    """
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError as error:
        raise missing_extra("pipeline", "near_duplicates", error) from error
    index = MinHashLSH(threshold=_LOOKED_UP, num_perm=_PERMUTATIONS)
    for start in range(0, len(problems), _AT_ONCE):
        words = [tokens(canonical(problem)) for problem in problems[start : start + _AT_ONCE]]
        places = [start + k for k, one in enumerate(words) if is_prose(one)]
        sketches = MinHash.bulk(
            [[" ".join(gram).encode("utf-8", "surrogatepass") for gram in _triples(words[i - start])] for i in places],
            num_perm=_PERMUTATIONS,
        )
        for i, sketch in zip(places, sketches, strict=True):
            own = words[i - start]
            found = [(share, j) for j in index.query(sketch) if (share := _share(own, problems[j])) >= NEAR_SHARE]
            if found:
                share, j = max(found, key=lambda one: (one[0], -one[1]))
                yield i, j, share
            index.insert(i, sketch)


def _share(words: Sequence[str], other: str) -> float:
    """Jaccard share of word triples; 0 where numbers or signs differ."""
    theirs = tokens(canonical(other))
    if _signs(words) != _signs(theirs):
        return 0.0
    a, b = _triples(words), _triples(theirs)
    return len(a & b) / len(a | b)


def _signs(words: Sequence[str]) -> Counter[str]:
    return Counter(word for word in words if not word.isalpha())


def _triples(words: Sequence[str]) -> set[tuple[str, str, str]]:
    return set(zip(words, words[1:], words[2:], strict=False))
