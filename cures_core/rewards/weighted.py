"""Knows what a completion is paid: so much for a right answer, so much for each rule of format that it keeps.

The outcome stays the answer's: pass rates, posterior and scores hear nothing of format, only training's reward does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cures_core.config.rewards import WeightedConfig
from cures_core.rewards.format import make_rule
from cures_core.rewards.verifier import Item, Verifier
from cures_core.terms import Outcome, Verdict


class WeightedVerifier(Verifier):
    """Verdicts of `answer`, with `reward` = the weights of what the completion has got right.

    Where the answer, or a rule, cannot be decided there is no reward to speak of: the verdict is `unknown`.
    """

    def __init__(self, cfg: WeightedConfig, answer: Verifier) -> None:
        self._answer, self._answer_weight = answer, cfg.answer_weight
        self._rules = [(rule.weight, make_rule(rule)) for rule in cfg.format]

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        verdicts = self._answer.judge(items)
        completions = [completion for completion, _ in items]
        kept = zip(*(rule.keep(completions) for _, rule in self._rules), strict=True)
        return [self._paid(verdict, marks) for verdict, marks in zip(verdicts, kept, strict=True)]

    def check_gold(self, answer: str) -> str | None:
        return self._answer.check_gold(answer)

    def same_answer(self, first: str, second: str) -> bool:
        return self._answer.same_answer(first, second)

    def figures(self) -> dict[str, float]:
        return self._answer.figures()

    def close(self) -> None:
        self._answer.close()
        for _, rule in self._rules:
            rule.close()

    def _paid(self, verdict: Verdict, marks: Sequence[bool | None]) -> Verdict:
        if verdict.outcome is Outcome.UNKNOWN:
            return verdict
        if None in marks:
            return replace(verdict, outcome=Outcome.UNKNOWN, reason=f"format rule {marks.index(None) + 1}: no decision")
        reward = self._answer_weight * verdict.paid
        reward += sum(weight for (weight, _), mark in zip(self._rules, marks, strict=True) if mark)
        return replace(verdict, reward=reward)
