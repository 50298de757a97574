"""Knows words that stand where an answer is missing, by how they behave: one word, in many rows, in no problem.

Publishers mark missing answers as they like (notfound, missing, keine Angabe). An answer that is a word nearly always
stands in some problem of its set, as one of what is asked for; a mark does not.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

MIN_ROWS = 3
MIN_SHARE = 0.001
"""A word is frequent from so many rows, and such a share of them, on."""
MAX_MARKS = 4
"""With more such words than this a set is taken for one whose answers are words, not for one with so many marks."""
MAX_LOOKED_FOR = 50

_WORDS = re.compile(r"(?=.{3,30}\Z)[^\W\d_]+(?:[ '/-][^\W\d_]+){0,3}[.!]?")
_POLAR = frozenset(["yes", "no", "true", "false"])
"""Answers that a question rarely spells out."""


def missing_answers(problems: pa.ChunkedArray, answers: pa.ChunkedArray) -> list[tuple[int, str]]:
    """(position, what was seen) of every row whose answer is such a word."""
    lowered = pc.utf8_lower(pc.utf8_trim_whitespace(answers))
    enough = max(MIN_ROWS, MIN_SHARE * len(answers))
    counts = pc.value_counts(lowered)
    frequent = counts.filter(pc.greater_equal(counts.field("counts"), enough)).to_pylist()
    words = sorted((-row["counts"], row["values"]) for row in frequent if _can_be_a_mark(row["values"]))
    marks = {word: -number for number, word in words[:MAX_LOOKED_FOR] if not _is_in(problems, word.rstrip(".!"))}
    if not marks or len(marks) > MAX_MARKS:
        return []
    rows = pc.indices_nonzero(pc.is_in(lowered, pa.array(list(marks), lowered.type))).to_pylist()
    texts = lowered.take(pa.array(rows)).to_pylist()
    return [
        (row, f"{word!a} answers {marks[word]:,} rows and is in no problem")
        for row, word in zip(rows, texts, strict=True)
    ]


def _can_be_a_mark(answer: str) -> bool:
    return _WORDS.fullmatch(answer) is not None and answer not in _POLAR


def _is_in(problems: pa.ChunkedArray, word: str) -> bool:
    found = pc.match_substring_regex(problems, rf"(?:^|\W){re.escape(word)}(?:\W|$)", ignore_case=True)
    return bool(pc.any(found).as_py())
