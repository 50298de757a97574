"""Majority votes: who counts, and what a tie is worth."""

from __future__ import annotations

import pytest

from cures_core.evaluation.voting import majority
from cures_core.terms import Outcome, Verdict


def votes(text: str) -> list[Verdict]:
    """`+7` is a correct completion that reads 7, `-7` a wrong one, `?7` one without a verdict, `-` no answer."""
    outcomes = {"+": Outcome.CORRECT, "-": Outcome.WRONG, "?": Outcome.UNKNOWN}
    return [Verdict(outcomes[word[0]], word[1:]) for word in text.split()]


@pytest.mark.parametrize(
    ("completions", "value"),
    [
        ("+7 +7 -8", 1.0),
        ("+7 -8 -8", 0.0),
        ("+7 -8", 1 / 2),
        ("+7 -8 -9", 1 / 3),
        ("+1/2 +0.5 -8 -8 -9", 1 / 2),  # correct completions are one party, however they are written
        ("+7 -8 -8.0", 0.0),  # wrong ones are where their texts say the same
        ("+7 - - -", 1.0),  # no answer, no vote
        ("- -", 0.0),
        ("+ +", 1.0),  # a verifier that reads no answer still says who is right
        ("+7 ?8 ?8", 0.0),  # no verdict: an answer like any other, and never the right one
        ("-8 -8", 0.0),
    ],
)
def test_a_vote(completions: str, value: float) -> None:
    verdicts = votes(completions)
    assert majority(verdicts) == value
    assert majority(verdicts[::-1]) == value
