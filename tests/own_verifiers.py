"""Verifiers of one's own, for tests: the processes that they run in import this file, so it imports nothing."""

from __future__ import annotations


def has_a_low_digit(completion: str, _: str) -> bool:
    """A reward that a random policy sometimes gets, and can learn."""
    return any(c in completion for c in "0123")


def judged_now_and_then(completion: str, gold: str) -> bool | None:
    """What a random policy sometimes gets right, more seldom for some prompts, and sometimes nobody can judge."""
    if completion.startswith("9"):
        return None
    return any(c in completion for c in gold)


def right_by_length(completion: str, gold: str) -> bool | None:
    """Whatever lets the tiny policy be right, wrong and undecided now and then."""
    return None if completion.startswith("=") else (len(completion) + int(gold)) % 2 == 0
