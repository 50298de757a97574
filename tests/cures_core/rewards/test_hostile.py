"""Hostile answers cost at most their deadline, win nothing, execute nothing, and leave a verifier that still works."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cures_core.config.rewards import MathConfig, NumericConfig
from cures_core.rewards import make_verifier
from cures_core.rewards.math import MathVerifier
from cures_core.terms import Outcome
from tests.cures_core.rewards.hostile import GOLD, corpus
from tests.cures_core.rewards.processes import children

OVERHEAD_S = 3.0
"""Starting a fresh process after a kill, on a busy machine."""


def run_gauntlet(completions: list[str], num_good: int, timeout_s: float, canary: Path) -> None:
    with make_verifier(MathConfig(timeout_s=timeout_s, workers=2)) as verifier:
        assert isinstance(verifier, MathVerifier)
        for completion in completions:
            start = time.monotonic()
            [verdict] = verifier.judge([(completion, GOLD)])
            assert time.monotonic() - start <= timeout_s + OVERHEAD_S, completion[:80]
            assert verdict.outcome is not Outcome.CORRECT, completion[:80]
            assert len(verdict.extracted) <= 1000
        good = [(rf"so \boxed{{{n}x+\sqrt{{5}}}}", rf"\sqrt{{5}}+{n}x") for n in range(2, 2 + num_good)]
        assert [v.outcome for v in verifier.judge(good)] == [Outcome.CORRECT] * num_good
        assert len(children()) <= 2
    assert children() == []
    assert not canary.exists()


def test_corpus_is_large_and_distinct(tmp_path: Path) -> None:
    assert len(set(corpus(tmp_path))) >= 200


def test_sample_of_hostile_answers(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    run_gauntlet(corpus(canary)[::40], num_good=30, timeout_s=0.3, canary=canary)


@pytest.mark.slow
def test_all_hostile_answers(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    run_gauntlet(corpus(canary), num_good=1000, timeout_s=2.0, canary=canary)


def test_numeric_verifier_takes_no_hostile_answer_for_long(tmp_path: Path) -> None:
    with make_verifier(NumericConfig()) as verifier:
        for completion in corpus(tmp_path):
            start = time.monotonic()
            [verdict] = verifier.judge([(completion, "123456789")])
            assert time.monotonic() - start < 2, completion[:80]
            assert verdict.outcome is Outcome.WRONG, completion[:80]
