"""Prompts: what one is, how files become sets of them, and what is wrong with the rows that do not."""

from cures_core.prompts.defects import REASONS, Defect, Severity
from cures_core.prompts.identity import content_id, make_prompt
from cures_core.prompts.loading import Loaded, annotated, load_prompts, reasons_table, require_acceptable
from cures_core.prompts.promptset import PromptSet

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
