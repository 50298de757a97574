"""Redactions of tests."""

from __future__ import annotations

CANARY = "hunter2-Jane.Doe@example.org"
MASK = "[masked]"


def without_canary(text: str) -> str:
    """What a team would write."""
    return text.replace(CANARY, MASK)


def failing_on_canary(text: str) -> str:
    """Its error holds the text, as errors do."""
    if CANARY in text:
        raise ValueError(f"cannot tell what to do with {text}")
    return text


def not_a_text(text: str) -> object:
    return len(text)


not_a_function = CANARY


def without_digits(text: str) -> str:
    """Leaves nothing of what the small policies of tests write."""
    return "".join("#" if c.isdigit() else c for c in text)


def failing_on_digits(text: str) -> str:
    """Fails on all that they write."""
    if any(c.isdigit() for c in text):
        raise ValueError(text)
    return text
