"""Knows what reasoning-gym's scorer of an item's task thinks of an answer; the scorer runs in confined processes."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Sequence

from cures_core.config.rewards import ReasoningGymConfig
from cures_core.errors import SystemRefused
from cures_core.rewards.extraction import last_box
from cures_core.rewards.pool import Pool, Reply
from cures_core.rewards.sandbox.confinement import why_not
from cures_core.rewards.valued import verdict_of
from cures_core.rewards.verifier import Item, Verifier
from cures_core.terms import Outcome, Verdict

MAX_ANSWER_CHARS = 20_000
"""Longest answer that is scored, in characters."""
_SHOWN_CHARS = 1000
_TAG = re.compile(r"<answer>|</answer>")


class ReasoningGymVerifier(Verifier):
    """`correct` where the task's scorer gives at least `threshold`; training is paid the score.

    Gold answers are those of `cures data generate`. Raises `SystemRefused` where scorers cannot be confined.
    """

    def __init__(self, cfg: ReasoningGymConfig) -> None:
        if missing := why_not():
            raise SystemRefused(f"reward.type = 'reasoning_gym': scorers cannot be confined here, as {missing}")
        self._threshold = cfg.threshold
        self._pool = Pool(cfg.workers, cfg.timeout_s, cfg.memory_mb, "gym")
        self._lock = threading.Lock()

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        found = [read_answer(completion) for completion, _ in items]
        with self._lock:
            replies = self._pool.run(
                [
                    {"item": prompt.answer, "answer": text[:MAX_ANSWER_CHARS]}
                    for text, (_, prompt) in zip(found, items, strict=True)
                ]
            )
        return [self._verdict(*pair) for pair in zip(found, replies, strict=True)]

    def check_gold(self, answer: str) -> str | None:
        """None where the item can be made and its own answer is right."""
        if not answer.strip():
            return "empty"
        with self._lock:
            [reply] = self._pool.run([{"item": answer, "answer": None}])
        if "score" not in reply:
            return str(reply["reason"])
        return None if reply["score"] >= self._threshold else f"its own answer scores {reply['score']:g}"

    def same_answer(self, first: str, second: str) -> bool:
        """Does the scorer of one item take the other's answer? Of one problem asked twice it does."""
        if super().same_answer(first, second):
            return True
        one, other = _own_answer(first), _own_answer(second)
        if one is None or other is None:
            return False
        with self._lock:
            replies = self._pool.run([{"item": first, "answer": other}, {"item": second, "answer": one}])
        return any(reply.get("score", 0.0) >= self._threshold for reply in replies)

    def close(self) -> None:
        with self._lock:
            self._pool.close()

    def _verdict(self, text: str, reply: Reply) -> Verdict:
        shown = text[:_SHOWN_CHARS]
        if "score" not in reply:
            return Verdict(Outcome.UNKNOWN, shown, "reasoning_gym", reply["reason"])
        return verdict_of(reply["score"], self._threshold, "reasoning_gym", shown)


def _own_answer(gold: str) -> str | None:
    try:
        return str(json.loads(gold)["answer"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def read_answer(completion: str) -> str:
    """What the last <answer> </answer> holds, else the last box, else the whole completion; of a mark that is never
    closed nothing."""
    marks = list(_TAG.finditer(completion))
    opened = [i for i, mark in enumerate(marks) if mark.group() == "<answer>"]
    if opened:
        closing = marks[opened[-1] + 1 :]
        return completion[marks[opened[-1]].end() : closing[0].start()].strip() if closing else ""
    box = last_box(completion)
    return completion.strip() if box is None else box.answer.strip()
