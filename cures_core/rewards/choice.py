"""Knows when a completion chooses the gold letter of a multiple-choice question."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cures_core.config.rewards import ChoiceConfig
from cures_core.rewards.extraction import Extracted, extract
from cures_core.rewards.plain import plain
from cures_core.rewards.verifier import Verifier
from cures_core.terms import Outcome, Verdict

_TAIL_CHARS = 4000
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")


class ChoiceVerifier(Verifier):
    """`correct` where the last box, else what follows "the answer is", else the last lone letter is the gold letter.

    A letter may stand in parentheses and be followed by its option's text: "(C) 12 apples" chooses C. Capitals only,
    except in parentheses or boxes. As for all verifiers, a malformed last box is no answer.
    """

    def __init__(self, cfg: ChoiceConfig) -> None:
        letters = cfg.letters
        self._letter = re.compile(rf"\s*[(\[]?\s*([{letters}{letters.lower()}])\s*(?:[)\].:,]|$|\s-)")
        self._lone = re.compile(rf"\(([{letters}{letters.lower()}])\)|^\W*([{letters}])\W*$", re.MULTILINE)

    def judge(self, items: Sequence[tuple[str, str]]) -> list[Verdict]:
        return [self._verdict(completion, gold) for completion, gold in items]

    def check_gold(self, answer: str) -> str | None:
        return None if self._read(answer) else "not one of the letters"

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
        if found.rule:
            return found
        last = None
        for last in self._lone.finditer(completion[-_TAIL_CHARS:]):  # noqa: B007
            pass
        return found if last is None else Extracted(last[1] or last[2], "last")

    def _read(self, text: str) -> str:
        match = self._letter.match(_TEXT.sub(r"\1", plain(text)).strip("$ *"))
        return match[1].upper() if match else ""
