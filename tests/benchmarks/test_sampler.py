from __future__ import annotations

import pytest

from benchmarks.sampler import measure


def test_it_measures_what_it_says() -> None:
    result = measure(5000, 64, rounds=3)
    assert (result["prompts"], result["draw"]) == (5000, 64)
    assert all(result[name] > 0 for name in ("ask_ms", "tell_ms", "memory_mib", "library_ms"))


@pytest.mark.slow
def test_an_ask_over_a_large_pool_stays_cheap() -> None:
    small, large = measure(100_000, 1024), measure(1_000_000, 1024)
    assert large["ask_ms"] < 10 * small["ask_ms"]
    assert large["tell_ms"] < 5 * small["tell_ms"]
