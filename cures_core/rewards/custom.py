"""Knows how a user's own function judges, named by a dotted path: in a process of its own, which can be killed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict

from cures_core.config.rewards import CustomConfig
from cures_core.plugins import require_allowed
from cures_core.rewards.pool import Pool, Reply
from cures_core.rewards.valued import verdict_of
from cures_core.rewards.verifier import Item, Verifier
from cures_core.terms import Outcome, Verdict

JOBS_PER_CHILD = 100_000
"""Calls after which a process is replaced: its function may have been dear to load."""


class CustomVerifier(Verifier):
    """Asks `function(completion, gold)`, or `function(completion, gold, prompt)` where that is what it takes: True,
    False, a number in 0..1, or None for `unknown`.

    An exception, a call that takes too long or too much memory, and one that ends its process are `unknown` too, and
    leave the next call unharmed. Raises `ConfigError` where the function may not be run or cannot be imported.
    """

    def __init__(self, cfg: CustomConfig) -> None:
        require_allowed(cfg.function, "reward.function")
        self._pool = Pool(cfg.workers, cfg.timeout_s, cfg.memory_mb, cfg.function, JOBS_PER_CHILD)
        self._lock = threading.Lock()
        self._threshold = cfg.threshold
        self._pool.start()

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        with self._lock:
            replies = self._pool.run(
                [{"arguments": (completion, prompt.answer), "prompt": asdict(prompt)} for completion, prompt in items]
            )
        return [self._verdict(reply) for reply in replies]

    def check_gold(self, answer: str) -> str | None:
        return None if answer.strip() else "empty"

    def same_answer(self, first: str, second: str) -> bool:
        """The same text, or the function takes one for a completion that the other makes right."""
        return super().same_answer(first, second) or any(
            verdict.outcome is Outcome.CORRECT for verdict in self.judge_pairs([(first, second), (second, first)])
        )

    def close(self) -> None:
        with self._lock:
            self._pool.close()

    def _verdict(self, reply: Reply) -> Verdict:
        if "returned" not in reply:
            return Verdict(Outcome.UNKNOWN, rule="custom", reason=reply["reason"])
        return verdict_of(reply["returned"], self._threshold, "custom")
