"""Remembers what a judge has said, on disk, so that a stage that is repeated hears the same and pays nothing."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cures_core.errors import SystemRefused
from cures_core.failures import Scene, machine_failure

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS judged "
    "(key TEXT PRIMARY KEY, score REAL, prompt_tokens INT, completion_tokens INT, seal TEXT)"
)
_WHOLE = "seal IS seal_of(key, score, prompt_tokens, completion_tokens)"
"""Is a row what was written? A byte that flips in one is another score, which SQLite does not notice."""
_KEEP = f"""INSERT INTO judged VALUES (:key, :score, :read, :written, seal_of(:key, :score, :read, :written))
ON CONFLICT (key) DO UPDATE SET score = excluded.score, prompt_tokens = excluded.prompt_tokens,
completion_tokens = excluded.completion_tokens, seal = excluded.seal WHERE NOT {_WHOLE}"""
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
    """A file of answers by key (SHA-256 of the question, hex), shared by processes of one machine. An answer that is
    not as it was written counts as none.

    Made when it is first used. Raises `SystemRefused` where it cannot be read or written, and what the table of
    failures says where the disk is full or fails, memory runs out, or another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "judged-2.sqlite"
        self._open: sqlite3.Connection | None = None

    def find(self, keys: Sequence[str]) -> dict[str, Judged]:
        """Those of the answers that are there."""
        found = {}
        with self._file() as file:
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = file.execute(f"SELECT * FROM judged WHERE key IN ({marks}) AND {_WHOLE}", some)
                found.update({key: Judged(*values) for key, *values, _ in rows})
        return found

    def keep(self, key: str, judged: Judged) -> None:
        """The first answer to a question stays, whoever has asked it."""
        with self._file() as file, file:
            read, written = judged.tokens
            file.execute(_KEEP, {"key": key, "score": float(judged.score), "read": read, "written": written})

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
                self._open.create_function("seal_of", 4, _seal, deterministic=True)
                self._open.execute("PRAGMA journal_mode=WAL")
                self._open.execute(_SCHEMA)
            yield self._open
        except (sqlite3.Error, OSError) as error:
            place = Scene(str(self._path), f"{self._path.parent} (reward.cache)", less_memory="leave the process more")
            raise machine_failure(error, place) or SystemRefused(
                f"{self._path}: {error}. It holds what judges have said: free the place, name another folder in "
                "reward.cache, or delete the file, which costs asking again"
            ) from error


def _seal(*values: object) -> str:
    """SHA-256 (hex) of a key and its answer, of whatever types damage may have made of them."""
    return hashlib.sha256(ascii(values).encode()).hexdigest()
