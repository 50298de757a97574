"""Knows whether a completion has the form that was asked for: one closed box, tags in their order, a pattern.

All but patterns are linear in the length of the text; patterns are searched in a process that can be killed.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence

from cures_core.config.rewards import BoxRule, FormatRule, PatternRule, TagsRule
from cures_core.rewards.extraction import count_boxes, last_box
from cures_core.rewards.pool import Pool
from cures_core.rewards.regex import MEMORY_MB, TAIL_CHARS


class Rule(ABC):
    """A rule of format."""

    @abstractmethod
    def keep(self, completions: Sequence[str]) -> list[bool | None]:
        """Which completions keep the rule; None where that cannot be decided."""

    def close(self) -> None:
        """Reap child processes. Safe to call twice. Default: there are none."""
        return


def make_rule(cfg: FormatRule) -> Rule:
    """The rule that a configuration names."""
    match cfg:
        case BoxRule():
            return OneBox()
        case TagsRule():
            return Tags(cfg.tags)
        case PatternRule():
            return Pattern(cfg)


class OneBox(Rule):
    """There is one box, it is closed, and it holds something."""

    def keep(self, completions: Sequence[str]) -> list[bool | None]:
        return [count_boxes(text) == 1 and _is_whole(text) for text in completions]


class Tags(Rule):
    """`<a>...</a>` and `<b>...</b>` occur once each, in this order, and nothing but white space is outside of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._marks = [mark for name in names for mark in (f"<{name}>", f"</{name}>")]

    def keep(self, completions: Sequence[str]) -> list[bool | None]:
        return [self._kept(text) for text in completions]

    def _kept(self, text: str) -> bool:
        if any(text.count(mark) != 1 for mark in self._marks):
            return False
        outside, rest = "", text
        for i, mark in enumerate(self._marks):
            before, found, rest = rest.partition(mark)
            if not found:  # it stands before the one that should precede it
                return False
            outside += "" if i % 2 else before
        return not (outside + rest).strip()


class Pattern(Rule):
    """The pattern occurs in the last 8,000 characters; a search that takes too long is undecided."""

    def __init__(self, cfg: PatternRule) -> None:
        self._pattern = cfg.pattern
        self._pool = Pool(1, cfg.timeout_s, MEMORY_MB, work="regex")
        self._lock = threading.Lock()

    def keep(self, completions: Sequence[str]) -> list[bool | None]:
        jobs = [{"pattern": self._pattern, "text": text[-TAIL_CHARS:]} for text in completions]
        with self._lock:
            replies = self._pool.run(jobs)
        return [reply["found"] is not None if "found" in reply else None for reply in replies]

    def close(self) -> None:
        with self._lock:
            self._pool.close()


def _is_whole(text: str) -> bool:
    found = last_box(text)
    return found is not None and not found.reason and bool(found.answer.strip())
