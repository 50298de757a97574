"""Knows when a completion chooses the gold letter of a multiple-choice question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from cures_core.config.rewards import ChoiceConfig
from cures_core.rewards.extraction import MAX_ANSWER_CHARS, Extracted, extract, phrase_sentence
from cures_core.rewards.plain import plain
from cures_core.rewards.verifier import Item, Verifier
from cures_core.terms import Outcome, Verdict

_TAIL_CHARS = 4000
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")


class ChoiceVerifier(Verifier):
    """`correct` where the last box, else what follows "the answer is", else the last lone letter is the gold letter.

    A letter may stand in parentheses and be followed by its option's text: "(C) 12 apples" chooses C. Capitals only,
    except in parentheses or boxes. Several letters ("A, C", "A or C", "(A) 5 (B) 6") choose nothing. As for all
    verifiers, a malformed last box is no answer.
    """

    def __init__(self, cfg: ChoiceConfig) -> None:
        letters = cfg.letters
        any_case = f"[{letters}{letters.lower()}]"
        self._letter = re.compile(rf"\s*[(\[]?\s*({any_case})\s*(?:[)\].:,]|$|\s-)")
        self._lone = re.compile(rf"\(({any_case})\)|^\W*([{letters}])\W*$", re.MULTILINE)
        # Behind a chosen letter: a word that joins, a letter after a mark that joins, or another option's mark.
        self._another = re.compile(
            rf"\s*(?:(?:and|or)\b|[/&+|]|[,;]?\s*(?:and|or)?\s*[(\[]?{any_case}[)\].]?\s*(?:$|[,;/&]|and\b|or\b))"
            rf"|.*?(?<!\w)(?:\([{letters}]\)|[{letters}](?:[):]|\.(?=\s)))",
            re.DOTALL,
        )
        self._joined = re.compile(rf"\({any_case}\)\s*(?:[,;/&+]|and\b|or\b|\s)+$")

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return [self._verdict(completion, prompt.answer) for completion, prompt in items]

    def check_gold(self, answer: str) -> str | None:
        return None if self._read(answer) else "not one of the letters"

    def same_answer(self, first: str, second: str) -> bool:
        return self._read(first) == self._read(second) != ""

    def _verdict(self, completion: str, gold: str) -> Verdict:
        wanted = self._read(gold)
        if not wanted:
            return Verdict(Outcome.UNKNOWN, reason="the gold answer is not one of the letters")
        found = self._find(completion)
        letter = "" if found.reason else self._read(found.answer)
        outcome = Outcome.CORRECT if letter == wanted else Outcome.WRONG
        return Verdict(outcome, letter or found.answer, found.rule, found.reason or ("" if letter else "not a letter"))

    def _find(self, completion: str) -> Extracted:
        found = extract(completion, ("box", "hashes", "phrase"))
        if found.rule == "phrase":
            return replace(
                found, answer=phrase_sentence(completion)[:MAX_ANSWER_CHARS]
            )  # up to a comma, "A, C" would be A
        if found.rule:
            return found
        last, tail = None, completion[-_TAIL_CHARS:]
        for last in self._lone.finditer(tail):  # noqa: B007
            pass
        if last is None:
            return found
        if last[1] and self._joined.search(tail[max(0, last.start() - 40) : last.start()]):
            return Extracted(last.group(), "last", "several letters")
        return Extracted(last[1] or last[2], "last")

    def _read(self, text: str) -> str:
        """The one letter that a text chooses, nothing where it is none or several."""
        text = _TEXT.sub(r"\1", plain(text)).strip("$ *")
        match = self._letter.match(text)
        return "" if match is None or self._another.match(text, match.end()) else match[1].upper()
