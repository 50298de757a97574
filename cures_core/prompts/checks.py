"""Knows what can be wrong with one row's problem, answer and labels, and the repairs that have one right outcome.

`defects` says what becomes of a row for each reason. Most rows are plain text and cost a few microseconds; the patterns
below look only at what could be at fault.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeGuard

from cures_core.config.data import PromptFile
from cures_core.errors import ConfigError
from cures_core.prompts.canonical import answer_key
from cures_core.prompts.chats import ROLES, read_chat, read_turns, written
from cures_core.prompts.columns import (
    MISSING,
    ColumnMap,
    apply_answer_rule,
    boxed,
    pick,
)
from cures_core.prompts.defects import Flaw
from cures_core.prompts.identity import nfc
from cures_core.prompts.json_rows import exact_numbers
from cures_core.terms import Turns

LABEL_CHARS = 200
_ANSWERS_REMEMBERED = 100_000

_TAGS = "p|br|img|script|style|div|span|table|tr|td|th|sub|sup|center|ul|ol|li|font|strong|em|iframe|svg"
_HTML = re.compile(rf"</?(?:{_TAGS})\b[^<>]*>|&(?:nbsp|lt|gt|amp|quot|#\d+);", re.IGNORECASE)
_CONTROL_TOKENS = re.compile(r"<\|[A-Za-z_0-9]+\|>|<｜[^<>]{1,40}｜>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</s>")
_LOST_BACKSLASH = re.compile(r"[\x08\x0c](?=[a-z])|\t(?:imes|heta|ext\{|frac|riangle|an\b)|\r(?:ho\b|ight)")
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# A joiner between letters of a script that uses it (or inside an emoji) is spelling, not dirt.
_ZERO_WIDTH = re.compile("[\u200b\u2060\ufeff\u00ad]|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])")
_CONTROL = re.compile("[\x01-\x08\x0b-\x1f\x7f-\x84\x86-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOJIBAKE = re.compile(
    "â€[\u0080-\u00ff\u0152-\u0178\u02c6\u02dc\u2018-\u2122]|[ÂÃ][\u0080-\u00bf\u0152-\u0178\u2018-\u2122]"
)
_PROOF = re.compile(r"\b[Pp]rove that\b|(?:^|[.\n]\s{0,5})(?:Prove|Show that|Justify)\b")
_MULTI_PART = re.compile(r"(?:^|\s)\((?:a|i)\)\s+[A-Z].*\s\((?:b|ii)\)\s+[A-Z]", re.DOTALL)
_STATED = re.compile(r"\b(?:answers?|ans|solution)\s*(?:is|[:=])\s*(\S.*?)\s*$", re.IGNORECASE)

# "None" is Python's null turned into text; "none" and "undefined" can be answers.
_PLACEHOLDER = re.compile(
    r"None|(?i:n/?a|nan|null|todo|tbd|unknown|omitted|not[ -]?found|no answer|not available"
    r"|answer(?: here)?|solution|proof|see (?:the )?(?:answer|solution|above|below|explanation|figure|text)|[-—?.…]*)"
)
_ENDS_OPEN = re.compile(r"[-+*/=^_({\[\\]$|\\(?:frac|times|cdot|pm|sqrt|left)$")
_LEVEL = re.compile(r"(?:level|lvl|difficulty)[\s:_-]*", re.IGNORECASE)


class Fields(NamedTuple):
    """A row's content and labels, clean."""

    problem: str
    answer: str
    source: str = ""
    level: str = ""
    subject: str = ""
    verifier: str = ""
    turns: str = ""
    """Earlier turns (`chats.written`)."""


Same = Callable[[str, str], bool]
"""True if two gold answers are one and the same."""


class GoldJudge(Protocol):
    """A run's verifier, as far as gold answers are concerned."""

    def of(self, source: str, name: str) -> GoldJudge:
        """Who is responsible for rows of a source, or for those that name a verifier; `ConfigError` for a name that
        there is not."""
        ...

    def check_gold(self, answer: str) -> str | None:
        """None if an answer can serve as gold, else the reason it cannot."""
        ...

    def same_answer(self, first: str, second: str) -> bool:
        """True if two gold answers are one and the same."""
        ...


class TextJudge:
    """Stands for a verifier where there is none: it takes any answer, and those of equal text for the same."""

    def of(self, source: str, name: str) -> TextJudge:
        return self

    def check_gold(self, answer: str) -> str | None:
        return None

    def same_answer(self, first: str, second: str) -> bool:
        return same_key(first, second)


def same_key(first: str, second: str) -> bool:
    """Whether two answers are the same as far as that can be seen without a verifier."""
    return answer_key(first) == answer_key(second)


NO_VERIFIER = TextJudge()


class Remembering:
    """A judge that is asked once for each answer, as far as it remembers. `check_golds` False: it takes any answer."""

    def __init__(self, judge: GoldJudge, check_golds: bool = True) -> None:
        self._judge, self._check_golds = judge, check_golds
        self._others: dict[GoldJudge, Remembering] = {}
        self._why = lru_cache(_ANSWERS_REMEMBERED)(judge.check_gold)

    def of(self, source: str, name: str) -> Remembering:
        own = self._judge.of(source, name)
        if own is self._judge:
            return self
        if own not in self._others:
            self._others[own] = Remembering(own, self._check_golds)
        return self._others[own]

    def check_gold(self, answer: str) -> str | None:
        return self._why(answer) if self._check_golds else None

    def same_answer(self, first: str, second: str) -> bool:
        return self._judge.same_answer(first, second)


Tokens = Callable[[str], int]
"""Number of tokens of a problem."""


def examine(
    record: Mapping[str, object],
    columns: ColumnMap,
    cfg: PromptFile,
    raw: bytes = b"",
    judge: GoldJudge = NO_VERIFIER,
) -> tuple[Fields | None, list[Flaw]]:
    """(the row's clean fields, None where there is no problem or answer to speak of; everything wrong with it)."""
    flaws: list[Flaw] = []
    turns, problem = clean_problem(pick(record, columns.problem), pick(record, columns.turns), cfg, flaws)
    answer = clean_answer(pick(record, columns.answer), columns.answer, cfg, raw, flaws)
    if problem is not None and not plain_problem(problem, cfg):
        _check_problem(problem, answer or "", flaws)
    if problem is None or answer is None:
        return None, flaws
    source = _label(pick(record, columns.source), flaws)
    verifier = _label(pick(record, columns.verifier), flaws)
    try:
        own = judge.of(source, verifier)
    except ConfigError as error:
        return None, [*flaws, ("unknown_verifier", str(error))]
    if columns.solution is not None:
        _compare_with_solution(pick(record, columns.solution), answer, own.same_answer, flaws)
    subject = _label(pick(record, columns.subject), flaws)
    level = _level(pick(record, columns.level), flaws)
    if (why := own.check_gold(answer)) is not None:
        flaws.append(("gold_rejected", why[:80]))
    return Fields(problem, answer, source, level, subject, verifier, written(turns)), flaws


def clean_problem(value: object, before: object, cfg: PromptFile, flaws: list[Flaw]) -> tuple[Turns, str | None]:
    """(earlier turns, the problem; None where there is none) out of the values of a row, clean: what its content id is
    made of. `before`: of a column of turns, where there is one."""
    turns, problem = _asked(value, cfg, flaws)
    if isinstance(before, str) and before:
        turns = _kept_turns(before, flaws)
    return _checked_turns(turns, flaws), None if problem is None else _clean_text(problem, flaws)


def clean_answer(value: object, name: str, cfg: PromptFile, raw: bytes, flaws: list[Flaw]) -> str | None:
    """The gold answer out of the value of the column `name`, clean; None where there is none."""
    if cfg.answer_rule == "field" and type(value) is str and _plain_number(value, cfg):
        return value
    text = _answer_text(value, name, cfg, raw, flaws)
    return None if text is None else _check_answer(text, cfg, flaws)


def plain_problem(problem: str, cfg: PromptFile) -> bool:
    """True where no check of a problem could find anything; says no too often rather than too rarely."""
    body = problem.replace("\n", " ")
    if not (0 < len(body) <= cfg.max_problem_chars and body.isascii() and body.isprintable()):
        return False
    if body[0] == " " or body[-1] == " ":
        return False
    for mark in _MARKS:
        if mark in body:
            return False
    tail = body[-200:].lower()
    return not (("ans" in tail or "olution" in tail) and (":" in tail or "=" in tail or "is" in tail))


def _plain_number(answer: str, cfg: PromptFile) -> bool:
    return len(answer) <= cfg.max_answer_chars and answer.isdecimal() and answer.isascii()


# What every pattern for problems contains, apart from characters that are not printable ASCII.
_MARKS = ("<", "&", "boxed", "##", "INST]", "rove", "Show that", "Justify", "(b)", "(ii)")


def _asked(value: object, cfg: PromptFile, flaws: list[Flaw]) -> tuple[Turns, str | None]:
    """(what was said before, the problem; None where there is none)."""
    turns: Turns = ()
    if cfg.problem_rule != "text" and value is not MISSING and value is not None:
        chat = read_chat(value)
        if chat.problem is None:
            flaws.append(("no_user_message", chat.unreadable))
            return (), None
        if cfg.problem_rule == "last_user":
            if chat.rest or chat.unreadable:
                flaws.append(("chat_context_left_out", chat.rest or chat.unreadable))
        else:
            turns = chat.turns
            if chat.unreadable:
                flaws.append(("chat_unreadable", chat.unreadable))
            if chat.reply:
                flaws.append(("chat_reply", ascii(chat.reply)[1:-1][:40]))
        value = chat.problem
    if not _is_text(value, "problem", flaws):
        return turns, None
    length = len(value) + sum(len(text) for _, text in turns)
    if length > cfg.max_problem_chars:
        flaws.append(("oversize_problem", f"{length:,} characters"))
        return turns, None
    return turns, str(value)


def _kept_turns(text: str, flaws: list[Flaw]) -> Turns:
    """Earlier turns out of a column of their own."""
    try:
        turns = read_turns(text)
    except ValueError:
        turns = ()
    if not turns or any(role not in ROLES for role, _ in turns):
        flaws.append(("chat_unreadable", ascii(text)[1:-1][:40]))
    return turns


def _checked_turns(turns: Turns, flaws: list[Flaw]) -> Turns:
    """Clean as a problem is, and as free of what would harm."""
    clean = tuple((role, _clean_text(text, flaws)) for role, text in turns)
    for _, text in clean:
        if "\ufffd" in text:
            flaws.append(("replacement_character", f"{text.count(chr(0xFFFD))} of them"))
        if found := _CONTROL_TOKENS.search(text):
            flaws.append(("control_tokens", found[0][:40]))
    return clean


def _answer_text(value: object, name: str, cfg: PromptFile, raw: bytes, flaws: list[Flaw]) -> str | None:
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        text = _spelled(value, name, raw)
        if text is None:
            flaws.append(("wrong_type_answer", f"{value}"))
            return None
        flaws.append(("number_answer", text))
        value = text
    if not _is_text(value, "answer", flaws):
        return None
    found = apply_answer_rule(cfg.answer_rule, value)
    if found is None or not found.strip():
        flaws.append(("answer_rule_found_nothing", f"answer_rule = {cfg.answer_rule}"))
        return None
    return found


def _spelled(value: float | Decimal, name: str, raw: bytes) -> str | None:
    """A number as the row spells it, .0 cut off; None for NaN and infinities."""
    text = str(value)
    if raw.lstrip()[:1] == b"{":
        text = str(pick(exact_numbers(raw), name))  # not through a binary float, which changes 0.1 and long integers
    if not re.fullmatch(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", text):
        return None
    return re.sub(r"\.0+$", "", text)


def _is_text(value: object, what: str, flaws: list[Flaw]) -> TypeGuard[str]:
    if value is MISSING:
        flaws.append((f"missing_{what}", ""))
    elif value is None:
        flaws.append((f"null_{what}", ""))
    elif not isinstance(value, str):
        flaws.append((f"wrong_type_{what}", type(value).__name__))
    elif not value:
        flaws.append((f"empty_{what}", ""))
    elif value.isspace():
        flaws.append((f"whitespace_{what}", ""))
    else:
        return True
    return False


def _clean_text(text: str, flaws: list[Flaw]) -> str:
    """Strip, NFC, LF only, no invisible marks; what cannot be repaired is only named."""
    text = text.strip()
    if text.isascii() and text.isprintable():
        return text
    text = text.replace("\r\n", "\n")
    if found := _LOST_BACKSLASH.search(text):
        flaws.append(("lost_backslash", ascii(text[found.start() : found.end() + 6])[1:-1]))
    elif found := _CONTROL.search(text):
        flaws.append(("control_character", f"U+{ord(found[0]):04X} at character {found.start()}"))
    if "\0" in text:
        flaws.append(("nul_escaped", f"at character {text.index(chr(0))}"))
    if found := _SURROGATE.search(text):
        flaws.append(("lone_surrogate", f"U+{ord(found[0]):04X} at character {found.start()}"))
    for code, pattern in (("bidi_marks", _BIDI), ("zero_width", _ZERO_WIDTH)):
        if found := pattern.search(text):
            flaws.append((code, f"U+{ord(found[0]):04X} at character {found.start()}"))
            text = pattern.sub("", text)
    return nfc(text).strip()


def _check_problem(problem: str, answer: str, flaws: list[Flaw]) -> None:
    """What in the problem's text would harm or waste training."""
    if not problem:
        flaws.append(("empty_problem", "nothing but invisible characters"))
    if "\ufffd" in problem:
        flaws.append(("replacement_character", f"{problem.count(chr(0xFFFD))} of them"))
    if not problem.isascii() and (found := _MOJIBAKE.search(problem)):
        flaws.append(("mojibake", ascii(found[0])[1:-1]))
    if found := _HTML.search(problem):
        flaws.append(("html", found[0][:40]))
    if found := _CONTROL_TOKENS.search(problem):
        flaws.append(("control_tokens", found[0][:40]))
    _check_leak(problem, answer, flaws)
    if _PROOF.search(problem):
        flaws.append(("proof", ""))
    if ("(b)" in problem or "(ii)" in problem) and _MULTI_PART.search(problem):
        flaws.append(("multi_part", ""))


def _check_leak(problem: str, answer: str, flaws: list[Flaw]) -> None:
    """The answer *stated as the answer*: word problems may hold the answer's number among their givens.

    A leak is "Answer: X" (or "the answer is X", "solution = X") that ends the problem, or \\boxed{X}, or "#### X",
    with X of the gold answer's value. Where the gold answer is empty, any X counts.
    """
    gold = answer_key(answer)
    stated = _STATED.search(problem[-200:].rstrip(" .)]}*"))
    if stated and len(stated[1]) <= 100 and (not answer or answer_key(stated[1].strip(" *([{")) == gold):
        flaws.append(("answer_leak", f"ends in {ascii(stated[0])[1:-1][-60:]}"))
    # Only a value that ends the text is its answer: some problems quote the solution of an earlier part.
    marked = problem.rfind("\\boxed") if "\\boxed" in problem else problem.rfind("####")
    tail = problem[marked:] if marked >= 0 else ""
    final = boxed(tail)[-1:] if tail.startswith("\\boxed") else [tail[4:].strip()] if tail else []
    solved = bool(final) and answer_key(final[0]) == gold and len(tail) < len(final[0]) + 60
    if solved and answer:
        if not stated:
            flaws.append(("answer_leak", "the final value is marked in the problem"))
        flaws.append(("solution_leak", "a worked solution with the marked answer"))


def _check_answer(answer: str, cfg: PromptFile, flaws: list[Flaw]) -> str | None:
    """The final answer, repaired; the flaws say if it cannot be one."""
    text = _clean_answer(answer, flaws)
    if text is None:
        return None
    if "####" in text or "<<" in text or ("\n\n" in text and len(text) > 200):
        flaws.append(("answer_not_final", ""))
        return text
    if text.startswith("\\boxed"):
        inner = boxed(text)
        if len(inner) == 1 and text == f"\\boxed{{{inner[0]}}}":
            flaws.append(("answer_wrapped", ""))
            text = inner[0]
    elif boxed(text):
        flaws.append(("answer_not_final", "holds \\boxed"))
        return text
    if len(text) > cfg.max_answer_chars:
        flaws.append(("oversize_answer", f"{len(text):,} characters"))
    if why := not_an_answer(text):
        flaws.append(why)
    elif re.search(r"\d\s*\\?%\s*\$?$", text):
        flaws.append(("answer_percent", ""))
    return text


def _clean_answer(answer: str, flaws: list[Flaw]) -> str | None:
    found: list[Flaw] = []
    text = _clean_text(answer, found)
    mended = {"bidi_marks", "zero_width"}
    flaws.extend(flaw for flaw in found if flaw[0] in mended)
    if worse := [flaw for flaw in found if flaw[0] not in mended]:
        flaws.append(("answer_damaged", f"{worse[0][0]} {worse[0][1]}"))
    elif "\ufffd" in text or (not text.isascii() and _MOJIBAKE.search(text)):
        flaws.append(("answer_damaged", "replacement characters or mojibake"))
    if not text:
        flaws.append(("empty_answer", "nothing but invisible characters"))
        return None
    return text


def not_an_answer(text: str) -> Flaw | None:
    """Why a text cannot be a gold answer, judged by its form alone; None if it can."""
    if text.isdecimal():
        return None
    if _PLACEHOLDER.fullmatch(text.strip("$ .")):
        return "answer_not_math", ascii(text)[1:-1]
    why = _unbalanced(text)
    return ("answer_unparsable", why) if why else None


def _unbalanced(text: str) -> str:
    """Why an answer cannot be whole: braces or dollars that do not close, or an operator at its end; "" if it can."""
    bare = re.sub(r"\\[{}$\\]", "", text)
    depth = 0
    for char in bare:
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth < 0:
            return "a brace closes that was not opened"
    if depth:
        return "a brace is not closed"
    if bare.count("$") % 2:
        return "an odd number of dollar signs"
    if _ENDS_OPEN.search(bare.rstrip("$ ")):
        return "ends in an operator"
    return ""


def _compare_with_solution(solution: object, answer: str, same: Same, flaws: list[Flaw]) -> None:
    """The solution's own final value against the answer; several boxed values mean that one was picked."""
    if not isinstance(solution, str):
        return
    if "\\boxed" in solution:
        found = boxed(solution)
        if found == [answer]:
            return
        keys = {answer_key(value): value for value in found}
        own = answer_key(answer)
        if len(keys) > 1 and own in keys:
            flaws.append(("answer_inconsistent_with_solution", f"{len(keys)} different boxed values"))
        # Two spellings of one expression differ as text: only numbers are compared.
        elif len(keys) == 1 and own.startswith("n:") and own not in keys:
            key, value = next(iter(keys.items()))
            if key.startswith("n:") and not same(value, answer):
                flaws.append(("answer_inconsistent_with_solution", f"boxed {key[2:]}"))
    elif "####" in solution:
        final = apply_answer_rule("gsm8k", solution) or ""
        if final and final != answer and not same_key(final, answer) and not same(final, answer):
            flaws.append(("answer_inconsistent_with_solution", f"#### {final[:40]}"))


def _label(value: object, flaws: list[Flaw]) -> str:
    if value is MISSING or value is None or value == "":
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if type(value) is str and len(value) <= LABEL_CHARS:
        text = value.strip()
        if text.isprintable():
            return text if text.isascii() else unicodedata.normalize("NFC", text)
    flaws.append(("bad_label", ascii(value)[:40]))
    return ""


def _level(value: object, flaws: list[Flaw]) -> str:
    """`Level 3`, 3 and "3" are "3"; 2.0 is "2"."""
    if type(value) is str and value.isdecimal() and len(value) < LABEL_CHARS:
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = _LEVEL.sub("", _label(value, flaws), count=1)
    if text and not any(c.isalnum() for c in text):
        flaws.append(("bad_level", ascii(value)[1:-1][:40]))
        return ""
    return text
