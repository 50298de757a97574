"""The verifier's interface: completions in, three-valued verdicts out."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from cures_core.terms import Verdict


@runtime_checkable
class Verifier(Protocol):
    """Never raises on hostile input; what cannot be decided is `unknown`, never `wrong`."""

    def judge(self, items: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Verdicts of (completion text, gold answer) pairs, in order."""
        ...

    def check_gold(self, answer: str) -> str | None:
        """None if `answer` can serve as gold (parses and equals itself), else the reason it cannot."""
        ...

    def close(self) -> None:
        """Reap child processes, if any. Safe to call twice."""
        ...


@runtime_checkable
class ManagedVerifier(Verifier, Protocol):
    """A verifier that closes itself at the end of a `with` block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
