"""Knows where a completion's final answer stands: the last box, after ####, after "the answer is", or the last number.

A mark decides once it occurs: of several marks of a kind the last one counts, and if what follows it is malformed
(box never closed, or empty) there is no answer. Nothing falls back to an earlier mark: a policy would learn to write
one answer for the reader and another for the verifier. All scans are linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cures_core.config.rewards import AnswerRule
from cures_core.rewards.numbers import TAIL_CHARS, last_number

MAX_ANSWER_CHARS = 1000
"""Longest final answer read, in characters; a longer one is no answer."""

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_TOKEN = re.compile(rf"(?P<box>{_BOX.pattern})[ \t\r\n]*(?P<open>\{{)?|\\.|[{{}}]", re.DOTALL)
_WORD = re.compile(r"[^\s${}\\]*")
_PHRASE = re.compile(r"\banswer\b[\s*_]{0,4}(?:is\b|[:=])[\s*_]{0,4}:?", re.IGNORECASE)
_PHRASE_END = re.compile(r"\n|\*\*|[.;!?](?=\s|$)|,\s|\s(?:because|since|so|as|which)\s")
_SENTENCE_END = re.compile(r"\n|[.;!?](?=\s|$)")
_IN_DOLLARS = r"((?:[^$\\]|\\.){1,1000})"
_COMMA = re.compile(r"\s*(?:,\s*(?:and\b)?|and\b)\s*")
_FORMULA = re.compile(rf"(?<!\\)\$\$?{_IN_DOLLARS}\$\$?|\\\(([^$]{{1,1000}}?)\\\)|\\\[([^$]{{1,1000}}?)\\\]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Extracted:
    """What was read: the answer ("" if there is none), the rule that decided, and why there is no answer."""

    answer: str
    rule: str
    reason: str = ""


def extract(text: str, rules: Sequence[AnswerRule], formulas: bool = False) -> Extracted:
    """The final answer of a completion by the first of `rules` whose mark occurs.

    `formulas`: the rule `last` takes the last formula between dollar signs (or \\( \\), \\[ \\]) before it looks for
    numbers.
    """
    for rule in rules:
        found = _last(text, formulas) if rule == "last" else _MARKED[rule](text)
        if found is not None:
            return _checked(replace(found, answer=found.answer.strip(), rule=rule))
    return Extracted("", "", "no final answer found")


def last_box(text: str) -> Extracted | None:
    """The outermost closed box around the last \\boxed (or \\fbox); None where the text has no box at all.

    A last box that is never closed is malformed, whatever came before it. Marks of boxes inside it are taken off.
    `\\boxed 5` holds the one word that follows. Escaped braces are not counted.
    """
    opened: list[tuple[int, int] | None] = []  # an open brace: (mark, begin of the content) of a box, None for a group
    closed: list[tuple[int, int, int]] = []  # (mark, begin, end) of boxes
    last: re.Match[str] | None = None
    for token in _TOKEN.finditer(text):
        if token["box"]:
            last = token
        if token["open"] or token.group() == "{":
            opened.append((token.start(), token.end()) if token["box"] else None)
        elif token.group() == "}" and opened and (box := opened.pop()):
            closed.append((*box, token.start()))
    if last is None:
        return None
    if last["open"] and all(mark != last.start() for mark, _, _ in closed):
        return Extracted("", "box", "the last box is never closed")
    around = [(begin, end) for mark, begin, end in closed if mark <= last.start() < end]
    if not around:
        return Extracted(_WORD.match(text, last.end()).group().rstrip(".,"), "box")  # type: ignore[union-attr]
    begin, end = min(around)
    return Extracted(_BOX.sub("", text[begin:end]), "box")


def count_boxes(text: str) -> int:
    """How many \\boxed and \\fbox there are, closed or not."""
    return sum(1 for _ in _BOX.finditer(text))


def after_hashes(text: str) -> Extracted | None:
    """The rest of the line after the last ####."""
    at = text.rfind("####")
    return None if at < 0 else Extracted(text[at + 4 :].partition("\n")[0], "hashes")


def after_phrase(text: str) -> Extracted | None:
    """What follows the last "answer is" or "answer:": formulas, joined by commas, else up to the end of the clause."""
    rest = _behind_phrase(text)
    if rest is None:
        return None
    if formula := _FORMULA.match(rest):
        parts = [_inner(formula)]
        while (comma := _COMMA.match(rest, formula.end())) and (following := _FORMULA.match(rest, comma.end())):
            parts.append(_inner(following))
            formula = following
        return Extracted(", ".join(parts), "phrase")
    return Extracted(_PHRASE_END.split(rest, maxsplit=1)[0].rstrip(" .*_"), "phrase")


def phrase_sentence(text: str) -> str:
    """What follows the last "answer is" or "answer:", up to the end of the sentence."""
    return _SENTENCE_END.split(_behind_phrase(text) or "", maxsplit=1)[0]


def _behind_phrase(text: str) -> str | None:
    mark = None
    for mark in _PHRASE.finditer(text):  # noqa: B007
        pass
    return None if mark is None else text[mark.end() :].lstrip(" \t\n*_:")


def _last(text: str, formulas: bool) -> Extracted | None:
    if formulas and (found := _FORMULA.findall(text[-TAIL_CHARS:])):
        return Extracted(next(part for part in found[-1] if part), "last")
    number = last_number(text)
    return None if number is None else Extracted(number, "last")


def _inner(formula: re.Match[str]) -> str:
    return next(part for part in formula.groups() if part)


def _checked(found: Extracted) -> Extracted:
    if found.reason:
        return found
    if not found.answer:
        return replace(found, reason="nothing follows the mark")
    if len(found.answer) > MAX_ANSWER_CHARS:
        return replace(found, answer="", reason=f"the answer is longer than {MAX_ANSWER_CHARS} characters")
    return found


_MARKED: dict[AnswerRule, Callable[[str], Extracted | None]] = {
    "box": last_box,
    "hashes": after_hashes,
    "phrase": after_phrase,
}
