"""Prompts: what one is, how files become sets of them, and what is wrong with the rows that do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cures_core.prompts.defects import REASONS, Defect, Severity
from cures_core.prompts.identity import content_id, make_prompt
from cures_core.prompts.promptset import PromptSet

if TYPE_CHECKING:
    from cures_core.prompts.loading import Loaded, annotated, load_prompts, reasons_table, require_acceptable

__all__ = [
    "REASONS",
    "Defect",
    "Loaded",
    "PromptSet",
    "Severity",
    "annotated",
    "content_id",
    "load_prompts",
    "make_prompt",
    "reasons_table",
    "require_acceptable",
]


def __getattr__(name: str) -> Any:
    """What reads files is loaded when it is asked for: the curriculum alone needs none of it."""
    if name in __all__:
        from cures_core.prompts import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
