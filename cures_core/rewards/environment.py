"""Knows what the rewards of an environment for `verifiers` say; they run in processes that can be killed."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

from cures_core.config.rewards import EnvironmentConfig
from cures_core.plugins import require_allowed
from cures_core.rewards.custom import JOBS_PER_CHILD
from cures_core.rewards.pool import Pool, Reply
from cures_core.rewards.valued import verdict_of
from cures_core.rewards.verifier import Item, Verifier
from cures_core.terms import Outcome, Verdict

_LABELS = ("id", "name", "description")
"""What tells tasks apart without making others of them."""


class EnvironmentVerifier(Verifier):
    """`correct` where the environment's reward is at least `threshold`; training is paid the reward, scaled to 0..1.

    Gold answers are those of `cures data generate`. Raises `ConfigError` where the environment may not be run, or is
    none.
    """

    def __init__(self, cfg: EnvironmentConfig) -> None:
        require_allowed(cfg.environment, "reward.environment")
        work = f"verifiers::{cfg.environment}"
        self._pool = Pool(cfg.workers, cfg.timeout_s, cfg.memory_mb, work, JOBS_PER_CHILD)
        self._lock = threading.Lock()
        self._bounds, self._threshold = cfg.bounds, cfg.threshold
        self._pool.start()

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        with self._lock:
            replies = self._pool.run([{"item": prompt.answer, "answer": text} for text, prompt in items])
        return [self._verdict(reply) for reply in replies]

    def check_gold(self, answer: str) -> str | None:
        """None where the task can be made again, and its rewards can score a completion that says nothing."""
        if not answer.strip():
            return "empty"
        [verdict] = self.judge_pairs([("", answer)])
        return f"scoring an empty completion: {verdict.reason}" if verdict.outcome is Outcome.UNKNOWN else None

    def same_answer(self, first: str, second: str) -> bool:
        """The same task, whatever it is called."""
        return super().same_answer(first, second) or _unlabelled(first) == _unlabelled(second)

    def close(self) -> None:
        with self._lock:
            self._pool.close()

    def _verdict(self, reply: Reply) -> Verdict:
        if "reward" not in reply:
            return Verdict(Outcome.UNKNOWN, rule="verifiers", reason=reply["reason"])
        low, high = self._bounds
        if not low <= (reward := reply["reward"]) <= high:
            reason = f"the reward {reward:g} is not within reward.bounds, {low:g} to {high:g}"
            return Verdict(Outcome.UNKNOWN, rule="verifiers", reason=reason)
        value, threshold = ((one - low) / (high - low) for one in (reward, self._threshold))
        return verdict_of(value, threshold, "verifiers")


def _unlabelled(gold: str) -> object:
    """A gold answer without its task's labels; its text where it is none."""
    try:
        value = json.loads(gold)
        return {**value, "data": {k: v for k, v in value["data"].items() if k not in _LABELS}}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return gold
