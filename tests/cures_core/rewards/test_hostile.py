"""Hostile answers cost at most their deadline, win nothing, execute nothing, and leave a verifier that still works."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cures_core.config.rewards import MathConfig, NumericConfig
from cures_core.rewards import make_verifier
from cures_core.rewards.math import MathVerifier
from cures_core.terms import Outcome
from tests.cures_core.rewards.hostile import GOLD, corpus
from tests.cures_core.rewards.processes import everything, workers

OVERHEAD_S = 0.5
"""Killing a process, and forking another, on a busy machine."""


def run_gauntlet(completions: list[str], num_good: int, cfg: MathConfig, canary: Path) -> None:
    with make_verifier(cfg) as verifier:
        assert isinstance(verifier, MathVerifier)
        verifier.judge_pairs([("x+1", "1+x")])  # starts the template
        slowest = 0.0
        for completion in completions:
            start = time.monotonic()
            [verdict] = verifier.judge_pairs([(completion, GOLD)])
            slowest = max(slowest, seconds := time.monotonic() - start)
            assert seconds <= cfg.timeout_s + OVERHEAD_S, completion[:80]
            assert verdict.outcome is not Outcome.CORRECT, completion[:80]
            assert len(verdict.extracted) <= 1000
        print(f"{len(completions)} hostile completions, the slowest took {slowest:.2f} s: {verifier.stats()}")
        good = [(rf"so \boxed{{{n}x+\sqrt{{5}}}}", rf"\sqrt{{5}}+{n}x") for n in range(2, 2 + num_good)]
        assert [v.outcome for v in verifier.judge_pairs(good)] == [Outcome.CORRECT] * num_good
        assert len(workers()) <= 2
    assert everything() == []
    assert not canary.exists()


def test_corpus_is_large_and_distinct(tmp_path: Path) -> None:
    assert len(set(corpus(tmp_path))) >= 200


def test_sample_of_hostile_answers(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    run_gauntlet(corpus(canary)[::40], num_good=30, cfg=MathConfig(timeout_s=0.3), canary=canary)


@pytest.mark.slow
def test_all_hostile_answers_beside_busy_processes(tmp_path: Path) -> None:
    """With the defaults: two seconds each, whatever else the machine does."""
    canary, cfg = tmp_path / "canary", MathConfig()
    assert cfg.timeout_s + OVERHEAD_S == 2
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        run_gauntlet(corpus(canary), num_good=1000, cfg=cfg, canary=canary)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_numeric_verifier_takes_no_hostile_answer_for_long(tmp_path: Path) -> None:
    with make_verifier(NumericConfig()) as verifier:
        for completion in corpus(tmp_path):
            start = time.monotonic()
            [verdict] = verifier.judge_pairs([(completion, "123456789")])
            assert time.monotonic() - start < 2, completion[:80]
            assert verdict.outcome is Outcome.WRONG, completion[:80]
