"""Knows how a verifier closes itself at the end of a `with` block."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Managed:
    """Base of verifiers: a context manager that calls `close`, which has nothing to do unless overridden."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release what is held. Safe to call twice."""
