"""Verdicts of the rollouts of training by prompt: how many there were, and which wrong answers agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from cures_core.prompts.canonical import answer_key
from cures_core.terms import Group, Outcome

MANY_TRIES = 4
"""Rollouts from which on it says something that none succeeded, none got a verdict, or most agree."""
MOST_ANSWERS = 8
"""Wrong answers that are kept of a prompt. One that most rollouts give is among them, however many others there are."""
_LONGEST = 80


class VoteCounts(TypedDict):
    """`Votes` as JSON."""

    rollouts: int
    correct: int
    unknown: int
    wrong: dict[str, int]


@dataclass
class Votes:
    """Counts of one prompt over all its rollouts; nothing fades."""

    rollouts: int = 0
    correct: int = 0
    unknown: int = 0
    wrong: dict[str, int] = field(default_factory=dict)
    """Votes by the answer as it was written first; spellings of one answer are one."""

    def vote(self, answer: str, times: int = 1) -> None:
        """Count a wrong answer."""
        answer = answer[:_LONGEST]
        key = answer_key(answer)
        known = next((written for written in self.wrong if answer_key(written) == key), answer)
        self.wrong[known] = self.wrong.get(known, 0) + times
        if len(self.wrong) > MOST_ANSWERS:  # the newcomer goes in for the rarest, and stays only if it comes again soon
            del self.wrong[min((w for w in self.wrong if w != known), key=lambda w: (self.wrong[w], w))]

    def rival(self) -> tuple[str, int]:
        """The wrong answer with the most votes, and how many; ("", 0) where there is none."""
        return min(self.wrong.items(), key=lambda vote: (-vote[1], vote[0]), default=("", 0))

    @property
    def is_unjudged(self) -> bool:
        """Was there never a verdict?"""
        return self.rollouts >= MANY_TRIES and self.unknown == self.rollouts

    @property
    def is_disputed(self) -> bool:
        """Do most rollouts agree on another answer than the gold one?"""
        number = self.rival()[1]
        return number >= MANY_TRIES and 2 * number > self.rollouts

    @property
    def is_suspicious(self) -> bool:
        """Does the prompt look wrong, rather than hard?"""
        return self.is_unjudged or self.is_disputed


class Tally:
    """Counts by prompt id. The state is JSON, and equal for equal rollouts in equal order.

    `readable` gives what of an answer may be written down, or nothing: such answers are not counted.
    """

    def __init__(
        self, state: Mapping[str, VoteCounts] | None = None, readable: Callable[[str], str] = lambda text: text
    ) -> None:
        self.prompts = {name: Votes(**counts) for name, counts in (state or {}).items()}
        self._readable = readable

    def observe(self, groups: Sequence[Group]) -> None:
        """Count the rollouts of a step."""
        for group in groups:
            votes = self.prompts.setdefault(group.request.prompt.id, Votes())
            votes.rollouts += len(group.verdicts)
            votes.correct += group.successes
            votes.unknown += group.unknown
            for verdict in group.verdicts:
                if verdict.outcome is Outcome.WRONG and (answer := self._readable(verdict.extracted)):
                    votes.vote(answer)

    def state_dict(self) -> dict[str, VoteCounts]:
        return {
            name: {"rollouts": v.rollouts, "correct": v.correct, "unknown": v.unknown, "wrong": dict(v.wrong)}
            for name, v in self.prompts.items()
        }
