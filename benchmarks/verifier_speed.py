"""Knows how fast a verifier is: completions a second, and how long one takes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cures_core.rewards.verifier import Verifier


@dataclass(frozen=True, slots=True)
class Speed:
    """Figures of one run: seconds for one completion judged alone (quantiles), completions a second in one batch."""

    completions: int
    batch_per_s: float
    p50_s: float
    p99_s: float
    max_s: float
    outcomes: dict[str, int]


def measure(verifier: Verifier, items: Sequence[tuple[str, str]], fresh: Verifier) -> Speed:
    """Judge `items` (completion, gold) one at a time with `verifier`, then in one batch with `fresh`.

    Two verifiers, so that nothing is answered from the cache of the first pass. Both are asked once before the clock
    starts, which starts their processes. Raises ValueError where there are no items.
    """
    if not items:
        raise ValueError("nothing to measure: items is empty")
    for each in (verifier, fresh):
        each.judge_pairs([(r"\boxed{w+1}", "1+w")])
    alone, outcomes = [], Counter[str]()
    for item in items:
        start = time.perf_counter()
        [verdict] = verifier.judge_pairs([item])
        alone.append(time.perf_counter() - start)
        outcomes[str(verdict.outcome)] += 1
    start = time.perf_counter()
    fresh.judge_pairs(items)
    batch_s = time.perf_counter() - start
    alone.sort()
    return Speed(
        completions=len(items),
        batch_per_s=len(items) / batch_s,
        p50_s=alone[len(alone) // 2],
        p99_s=alone[len(alone) * 99 // 100],
        max_s=alone[-1],
        outcomes=dict(sorted(outcomes.items())),
    )
