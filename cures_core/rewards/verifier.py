"""What a verifier is: completions in, three-valued verdicts out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from cures_core.errors import ConfigError
from cures_core.terms import Prompt, Verdict

Item = tuple[str, Prompt]
"""A completion, and the prompt that it answers."""


class Verifier(ABC):
    """Never raises on hostile input; what cannot be decided is `unknown`, never `wrong`. Closed by a `with` block."""

    @abstractmethod
    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Verdicts of completions, in order. The gold answer is the prompt's `answer`."""

    def judge_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Verdicts of (completion, gold answer) pairs of which nothing else is known, in order."""
        return self.judge([(completion, Prompt("", "", gold)) for completion, gold in pairs])

    @abstractmethod
    def check_gold(self, answer: str) -> str | None:
        """None if `answer` can serve as gold (parses and equals itself), else the reason it cannot."""

    def same_answer(self, first: str, second: str) -> bool:
        """True if two gold answers are one, so that what is right for one is right for both. Default: the same text."""
        return first.strip() == second.strip()

    def figures(self) -> dict[str, float]:
        """What the verdicts since the last call have cost, for the step's metrics; the same whether they were
        remembered or not. Default: nothing."""
        return {}

    def of(self, source: str, name: str) -> Verifier:
        """The verifier that is responsible for prompts of a source, or for those that name it. Default: this one.

        Raises `ConfigError` where there is none of that name.
        """
        if name:
            raise ConfigError(f"no verifier is called {name!r}: reward.by_source configures none")
        return self

    def close(self) -> None:
        """Reap child processes. Safe to call twice. Default: there are none."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
