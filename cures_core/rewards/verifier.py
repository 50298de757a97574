"""What a verifier is: completions in, three-valued verdicts out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from cures_core.terms import Verdict


class Verifier(ABC):
    """Never raises on hostile input; what cannot be decided is `unknown`, never `wrong`. Closed by a `with` block."""

    @abstractmethod
    def judge(self, items: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Verdicts of (completion text, gold answer) pairs, in order."""

    @abstractmethod
    def check_gold(self, answer: str) -> str | None:
        """None if `answer` can serve as gold (parses and equals itself), else the reason it cannot."""

    def same_answer(self, first: str, second: str) -> bool:
        """True if two gold answers are one, so that what is right for one is right for both. Default: the same text."""
        return first.strip() == second.strip()

    def close(self) -> None:
        """Reap child processes. Safe to call twice. Default: there are none."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
