"""Knows what a value between 0 and 1 says: right from a threshold on, and paid as much as it is."""

from __future__ import annotations

import math
from numbers import Real

from cures_core.terms import Outcome, Verdict


def verdict_of(value: object, threshold: float, rule: str, extracted: str = "") -> Verdict:
    """What a grader has returned as a verdict: True, False, None for `unknown`, or a number in 0..1.

    Of a number the posterior and the scores hear whether it reaches the threshold; training is paid the number. What is
    none of these is `unknown`.
    """
    if value is None:
        return Verdict(Outcome.UNKNOWN, extracted, rule)
    if isinstance(value, bool):
        return Verdict(Outcome.CORRECT if value else Outcome.WRONG, extracted, rule)
    if not isinstance(value, Real):
        reason = f"returned {type(value).__name__}, not True, False, None or a number"
        return Verdict(Outcome.UNKNOWN, extracted, rule, reason)
    number = float(value)
    if not (math.isfinite(number) and 0 <= number <= 1):
        return Verdict(Outcome.UNKNOWN, extracted, rule, f"returned {number:g}, which is not in 0..1")
    outcome = Outcome.CORRECT if number >= threshold else Outcome.WRONG
    return Verdict(outcome, extracted, rule, reward=number)
