"""Knows where the thinking of a completion ends and its answer begins. Tags are (opening, closing), or none."""

from __future__ import annotations

Tags = tuple[str, ...]


def answer_of(text: str, tags: Tags) -> str:
    """What follows the last closing tag; nothing where thinking was opened and not closed; without tags all of it.

    A closing tag alone counts: many chat templates open the thinking themselves.
    """
    return text[answer_start(text, tags) :]


def answer_start(text: str, tags: Tags) -> int:
    """The index in `text` at which the answer begins; its length where there is none."""
    if not tags:
        return 0
    opening, closing = tags
    closed = text.rfind(closing)
    start = closed + len(closing) if closed >= 0 else 0
    return len(text) if opening in text[start:] else start
