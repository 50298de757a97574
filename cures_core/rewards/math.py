"""Knows when a final answer is mathematically equal to gold: cheap certainties here, all else in confined processes."""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence

from cures_core.config.rewards import MathConfig
from cures_core.extras import require_module
from cures_core.rewards.choices import compared, read_option
from cures_core.rewards.extraction import MAX_ANSWER_CHARS, Extracted, extract
from cures_core.rewards.numbers import parse_quantity
from cures_core.rewards.pool import Pool
from cures_core.rewards.tidy import formulas, key, same_base, tidy, words
from cures_core.rewards.verifier import Item, Verifier
from cures_core.terms import Outcome, Verdict

CACHE_ENTRIES = 50_000
"""Comparisons remembered, least recently used out first; an entry holds two answers of at most 1,000 characters."""
_WARN_SHARE, _WARN_AFTER = 0.01, 200

Decision = tuple[Outcome, str]
Pair = tuple[str, str]

log = logging.getLogger(__name__)


class MathVerifier(Verifier):
    """`correct` where the final answer equals gold by text, as an exact number, or by math-verify.

    An answer that does not parse is `wrong`. A gold answer that does not parse, a timeout, a crash or an exhausted
    memory limit is `unknown`. Safe to call from several threads; comparisons of one call run in parallel processes.
    """

    def __init__(self, cfg: MathConfig) -> None:
        self._rules = cfg.rules
        self._pool = Pool(cfg.workers, cfg.timeout_s, cfg.memory_mb)
        self._cache: OrderedDict[Pair, Decision] = OrderedDict()
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._warned = False

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        found = [extract(completion, self._rules, formulas=True) for completion, _ in items]
        pairs = [_tidied(prompt.answer, f.answer) for f, (_, prompt) in zip(found, items, strict=True)]
        with self._lock:
            decisions = self._decide([p for p, f in zip(pairs, found, strict=True) if not f.reason])
            verdicts = [_verdict(f, decisions.get(pair)) for f, pair in zip(found, pairs, strict=True)]
            self._count(verdicts)
        return verdicts

    def check_gold(self, answer: str) -> str | None:
        latex = tidy(answer[: MAX_ANSWER_CHARS + 1])
        if not latex:
            return "empty"
        if len(latex) > MAX_ANSWER_CHARS:
            return f"longer than {MAX_ANSWER_CHARS} characters"
        if read_option(latex) or words(latex) is not None or parse_quantity(latex, units=False) is not None:
            return None
        with self._lock:
            outcome, reason = self._compare([(latex, latex)])[0]
        return None if outcome is Outcome.CORRECT else reason or "does not equal itself"

    def same_answer(self, first: str, second: str) -> bool:
        """True if either is a correct answer where the other is gold."""
        pairs = [_tidied(first, second), _tidied(second, first)]
        with self._lock:
            decisions = self._decide(pairs)
        return any(decisions[pair][0] is Outcome.CORRECT for pair in pairs)

    def stats(self) -> dict[str, int]:
        """Counts so far: verdicts by outcome and rule of decision, cache hits, and what the processes did."""
        return {**dict(sorted(self._counts.items())), **self._pool.counts}

    def close(self) -> None:
        with self._lock:
            self._pool.close()

    def _decide(self, pairs: Sequence[Pair]) -> dict[Pair, Decision]:
        """One decision for every distinct pair of tidied gold and answer."""
        decisions: dict[Pair, Decision] = {}
        hard: list[Pair] = []
        for pair in dict.fromkeys(pairs):
            if (known := _easy(*pair)) is not None:
                decisions[pair] = known
                self._counts["easy"] += 1
            elif pair in self._cache:
                self._cache.move_to_end(pair)
                decisions[pair] = self._cache[pair]
                self._counts["cached"] += 1
            else:
                hard.append(pair)
        for pair, decision in zip(hard, self._compare(hard), strict=True):
            decisions[pair] = self._cache[pair] = decision
        while len(self._cache) > CACHE_ENTRIES:
            self._cache.popitem(last=False)
        return decisions

    def _compare(self, pairs: Sequence[Pair]) -> list[Decision]:
        jobs = [dict(zip(("gold", "answer"), formulas(*pair), strict=True)) for pair in pairs]
        if jobs:
            require_module("math_verify", "comparing mathematics that is no plain number")
        replies = self._pool.run(jobs)
        return [(Outcome(reply["outcome"]), str(reply["reason"])) for reply in replies]

    def _count(self, verdicts: Sequence[Verdict]) -> None:
        self._counts.update(str(verdict.outcome) for verdict in verdicts)
        judged = sum(self._counts[outcome] for outcome in Outcome)
        share = self._counts[Outcome.UNKNOWN] / max(judged, 1)
        if not self._warned and judged >= _WARN_AFTER and share > _WARN_SHARE:
            self._warned = True
            log.warning("%.1f %% of %d verdicts are unknown: %s", 100 * share, judged, self.stats())


def _tidied(gold: str, answer: str) -> Pair:
    return compared(tidy(gold[: MAX_ANSWER_CHARS + 1]), tidy(answer))


def _easy(gold: str, answer: str) -> Decision | None:
    """What needs no algebra: same text, plain numbers (exact), words. None: it takes a comparison."""
    if not gold:
        return Outcome.UNKNOWN, "the gold answer is empty"
    if len(gold) > MAX_ANSWER_CHARS:
        return Outcome.UNKNOWN, f"the gold answer is longer than {MAX_ANSWER_CHARS} characters"
    if len(answer) > 2 * MAX_ANSWER_CHARS:
        return Outcome.WRONG, "the answer is too long"
    if key(gold) == key(answer):
        return Outcome.CORRECT, "same text"
    if (wanted := parse_quantity(gold, units=False)) and (given := parse_quantity(answer, units=False)):
        return Outcome.CORRECT if given.equals(wanted) else Outcome.WRONG, "numbers"
    if (same := same_base(gold, answer)) is not None:
        return Outcome.CORRECT if same else Outcome.WRONG, "numbers with a base"
    if len(gold) == len(answer) == 1:
        return Outcome.WRONG, "different symbols"
    if (text := words(gold)) is not None:
        return Outcome.CORRECT if words(answer) == text else Outcome.WRONG, "words"
    return None


def _verdict(found: Extracted, decision: Decision | None) -> Verdict:
    if found.reason or decision is None:
        return Verdict(Outcome.WRONG, found.answer, found.rule, found.reason)
    outcome, reason = decision
    return Verdict(outcome, found.answer, found.rule, reason)
