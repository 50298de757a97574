"""Knows when a user's pattern captures the gold answer; the search runs in a process that can be killed."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from cures_core.config.rewards import RegexConfig
from cures_core.rewards.pool import Pool, Reply
from cures_core.rewards.verifier import Item, Verifier
from cures_core.terms import Outcome, Verdict

TAIL_CHARS = 8000
MEMORY_MB = 512


class RegexVerifier(Verifier):
    """`correct` where the last match's first group is the gold answer; no match is `wrong`, a timeout `unknown`."""

    def __init__(self, cfg: RegexConfig) -> None:
        self._pattern = cfg.pattern
        self._pool = Pool(cfg.workers, cfg.timeout_s, MEMORY_MB, work="regex")
        self._lock = threading.Lock()

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        jobs = [{"pattern": self._pattern, "text": completion[-TAIL_CHARS:]} for completion, _ in items]
        with self._lock:
            replies = self._pool.run(jobs)
        return [_verdict(reply, prompt.answer.strip()) for reply, (_, prompt) in zip(replies, items, strict=True)]

    def check_gold(self, answer: str) -> str | None:
        return None if answer.strip() else "empty"

    def close(self) -> None:
        with self._lock:
            self._pool.close()


def _verdict(reply: Reply, gold: str) -> Verdict:
    if not gold:
        return Verdict(Outcome.UNKNOWN, rule="regex", reason="the gold answer is empty")
    if "found" not in reply:
        return Verdict(Outcome.UNKNOWN, rule="regex", reason=reply["reason"])
    if reply["found"] is None:
        return Verdict(Outcome.WRONG, rule="regex", reason="no match")
    found = reply["found"].strip()
    return Verdict(Outcome.CORRECT if found == gold else Outcome.WRONG, found, "regex")
