"""Knows who wins a vote among the completions of one item, and what a tie is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cures_core.prompts.canonical import answer_key
from cures_core.terms import Outcome, Verdict

_GOLD = ""
"""The party of the correct completions; no wrong answer has an empty key."""


def majority(verdicts: Iterable[Verdict]) -> float:
    """What a majority vote over the completions scores on this item, 0..1.

    Correct completions are one party, however their answers are written; the others vote by their answer's text up to
    spelling, and those without an answer do not vote. Of several parties with the most votes each wins with the same
    probability: a tie of the correct party with two others is worth 1/3. So their order means nothing.
    """
    votes = Counter(
        _GOLD if verdict.outcome is Outcome.CORRECT else answer_key(verdict.extracted)
        for verdict in verdicts
        if verdict.outcome is Outcome.CORRECT or verdict.extracted
    )
    if not votes[_GOLD]:
        return 0.0
    most = max(votes.values())
    return 1 / sum(number == most for number in votes.values()) if votes[_GOLD] == most else 0.0
