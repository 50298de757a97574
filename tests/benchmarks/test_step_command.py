"""`python -m benchmarks step` prints figures of both sides, or says what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.pipeline import run_module

SMALL = ("--prompts", 3, "--n", 2, "--max-new-tokens", 6, "--json")


def test_an_unknown_peer_is_named(tmp_path: Path) -> None:
    outcome = run_module("benchmarks", "step", "--peer", "verl", cwd=tmp_path)
    assert outcome.code == 2, outcome
    assert "--peer verl" in outcome.err
    assert "trl" in outcome.err


@pytest.mark.slow
def test_a_step_beside_trl(tmp_path: Path) -> None:
    outcome = run_module("benchmarks", "step", "--steps", 1, "--repeats", 1, *SMALL, cwd=tmp_path, timeout=900)
    assert outcome.code == 0, outcome.err
    result = outcome.summary
    assert result["cures"]["prompt_tokens"] == result["trl"]["prompt_tokens"] > 0
    assert result["ratio"]["total_s"] == pytest.approx(result["cures"]["total_s"] / result["trl"]["total_s"], abs=0.01)
    assert result["spec"]["model"] == "random Llama"
