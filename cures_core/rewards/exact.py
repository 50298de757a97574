"""Knows when a whole completion is the gold answer, letter by letter."""

from __future__ import annotations

from collections.abc import Sequence

from cures_core.rewards.verifier import Item, Verifier
from cures_core.terms import Outcome, Verdict


class ExactVerifier(Verifier):
    """`correct` where completion and gold are the same string after stripping white space at both ends."""

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return [self._verdict(completion.strip(), prompt.answer.strip()) for completion, prompt in items]

    def check_gold(self, answer: str) -> str | None:
        return None if answer.strip() else "empty"

    @staticmethod
    def _verdict(answer: str, gold: str) -> Verdict:
        if not gold:
            return Verdict(Outcome.UNKNOWN, answer, "exact", "the gold answer is empty")
        return Verdict(Outcome.CORRECT if answer == gold else Outcome.WRONG, answer, "exact")
