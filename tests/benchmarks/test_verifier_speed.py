"""The bench counts what it judged and orders its quantiles."""

from __future__ import annotations

import pytest

from benchmarks.verifier_speed import measure
from cures_core.config.rewards import NumericConfig
from cures_core.rewards import make_verifier


def test_speed_counts_every_completion() -> None:
    with make_verifier(NumericConfig()) as one, make_verifier(NumericConfig()) as two:
        speed = measure(one, [("5", "5")] * 30 + [("6", "5")] * 10 + [("5", "x")] * 2, two)
        with pytest.raises(ValueError, match="empty"):
            measure(one, [], two)
    assert speed.outcomes == {"correct": 30, "unknown": 2, "wrong": 10}
    assert speed.completions == 42
    assert 0 < speed.p50_s <= speed.p99_s <= speed.max_s
    assert speed.batch_per_s > 0
