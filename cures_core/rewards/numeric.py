"""Knows when a completion's final answer is the gold number."""

from __future__ import annotations

from collections.abc import Sequence

from cures_core.config.rewards import NumericConfig
from cures_core.rewards.extraction import extract
from cures_core.rewards.numbers import Quantity, parse_quantity
from cures_core.rewards.verifier import Item, Verifier
from cures_core.terms import Outcome, Verdict


class NumericVerifier(Verifier):
    """`correct` where the final answer and gold are the same number (`cures_core.rewards.numbers` says which are).

    Of an equation the right-hand side counts: x = 5 is 5. An answer that is no number is `wrong`, a gold answer that
    is no number makes the verdict `unknown`.
    """

    def __init__(self, cfg: NumericConfig) -> None:
        self._rules = cfg.rules

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return [self._verdict(completion, prompt.answer) for completion, prompt in items]

    def check_gold(self, answer: str) -> str | None:
        return None if _read(answer) else "not a number"

    def same_answer(self, first: str, second: str) -> bool:
        one, other = _read(first), _read(second)
        return one is not None and other is not None and one.equals(other)

    def _verdict(self, completion: str, gold: str) -> Verdict:
        wanted = _read(gold)
        if wanted is None:
            return Verdict(Outcome.UNKNOWN, reason="the gold answer is not a number")
        found = extract(completion, self._rules)
        if found.reason:
            return Verdict(Outcome.WRONG, found.answer, found.rule, found.reason)
        number = _read(found.answer)
        if number is None:
            return Verdict(Outcome.WRONG, found.answer, found.rule, "not a number")
        return Verdict(Outcome.CORRECT if number.equals(wanted) else Outcome.WRONG, found.answer, found.rule)


def _read(text: str) -> Quantity | None:
    return parse_quantity(text.rpartition("=")[2])
