"""Remembers what a judge has said, on disk, so that a stage that is repeated hears the same and pays nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cures_core.errors import SystemRefused

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS judged (key TEXT PRIMARY KEY, score REAL, prompt_tokens INT, completion_tokens INT)"
)
TOKENS = ("judge_prompt_tokens", "judge_completion_tokens")
"""Figures of what judges have read and written."""
_WAIT_S = 60.0
"""Longest wait for another process that writes."""
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Judged:
    """A judge's answer: its score in 0..1, and the tokens that it has cost."""

    score: float
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> tuple[int, int]:
        """Read and written."""
        return self.prompt_tokens, self.completion_tokens


class JudgedBefore:
    """A file of answers by key (SHA-256 of the question, hex), shared by processes of one machine.

    Made when it is first used. Raises `SystemRefused` where it cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "judged-1.sqlite"
        self._open: sqlite3.Connection | None = None

    def find(self, keys: Sequence[str]) -> dict[str, Judged]:
        """Those of the answers that are there."""
        found = {}
        with self._file() as file:
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = file.execute(f"SELECT * FROM judged WHERE key IN ({marks})", some)
                found.update({key: Judged(*values) for key, *values in rows})
        return found

    def keep(self, key: str, judged: Judged) -> None:
        """The first answer to a question stays, whoever has asked it."""
        with self._file() as file, file:
            values = (key, judged.score, judged.prompt_tokens, judged.completion_tokens)
            file.execute("INSERT OR IGNORE INTO judged VALUES (?, ?, ?, ?)", values)

    def close(self) -> None:
        """Safe to call twice; what is asked afterwards opens it again."""
        if self._open is not None:
            self._open.close()
            self._open = None

    @contextmanager
    def _file(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._open is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._open = sqlite3.connect(self._path, _WAIT_S, check_same_thread=False)
                self._open.execute("PRAGMA journal_mode=WAL")
                self._open.execute(_SCHEMA)
            yield self._open
        except (sqlite3.Error, OSError) as error:
            raise SystemRefused(
                f"{self._path}: {error}. It holds what judges have said: free the place, name another folder in "
                "reward.cache, or delete the file, which costs asking again"
            ) from error
