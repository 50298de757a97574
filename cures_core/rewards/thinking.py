"""Knows that what a policy only thinks is no answer: a verifier behind it sees what follows the thinking."""

from __future__ import annotations

from collections.abc import Sequence

from cures_core.rewards.verifier import Item, Verifier
from cures_core.terms import Outcome, Verdict
from cures_core.thinking import Tags, answer_of

NO_ANSWER = "nothing follows the thinking"


class AfterThinking(Verifier):
    """Verdicts of `answer` on what follows the last closing tag. Where nothing does, as where thinking is never closed,
    they are `wrong`."""

    def __init__(self, answer: Verifier, tags: Tags) -> None:
        self._answer, self._tags = answer, tags

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        answers = [(answer_of(completion, self._tags), prompt) for completion, prompt in items]
        verdicts = self._answer.judge(answers)
        return [
            Verdict(Outcome.WRONG, reason=NO_ANSWER)
            if verdict.outcome is not Outcome.UNKNOWN and answer != completion and not answer.strip()
            else verdict
            for verdict, (completion, _), (answer, _) in zip(verdicts, items, answers, strict=True)
        ]

    def check_gold(self, answer: str) -> str | None:
        return self._answer.check_gold(answer)

    def same_answer(self, first: str, second: str) -> bool:
        return self._answer.same_answer(first, second)

    def figures(self) -> dict[str, float]:
        return self._answer.figures()

    def of(self, source: str, name: str) -> Verifier:
        return AfterThinking(self._answer.of(source, name), self._tags)

    def close(self) -> None:
        self._answer.close()
