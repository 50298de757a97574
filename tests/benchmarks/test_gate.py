"""The gate's benchmark measures the real gate: an easier gate would show."""

from __future__ import annotations

import pytest

from benchmarks import gate
from benchmarks.gate import coverage, measure_gate, promoted_share


def test_chance_seldom_promotes_and_a_gain_mostly_does() -> None:
    result = measure_gate(200, 4, 200, [0.02, 0.08], seed=0)
    shares = [row["promoted"] for row in result["power"]]
    assert shares[0] <= 0.05
    assert shares[0] < shares[1] < shares[2]
    assert 0.9 <= result["coverage"] <= 0.99
    assert 0 < result["power"][2]["true_gain"] < 0.08
    assert result == measure_gate(200, 4, 200, [0.02, 0.08], seed=0)


def test_a_gate_that_does_not_look_at_the_interval_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = gate.compare
    monkeypatch.setattr(gate, "compare", lambda *a: (p := real(*a)).model_copy(update={"low": p.gain}))
    assert promoted_share(100, 4, 100, 0.0, 0)[0] > 0.3


def test_an_interval_of_half_the_length_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert coverage(100, 1, 300, 0) >= 0.9
    real = gate.bootstrap
    monkeypatch.setattr(gate, "bootstrap", lambda values, _confidence, *rest: real(values, 0.6, *rest))
    assert coverage(100, 4, 300, 0) < 0.8
