"""Successive halving finds the best candidate, pays little for the others, and says what it has tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.curriculum import tuning
from benchmarks.curriculum.arm import Arm
from benchmarks.curriculum.methods import METHODS
from benchmarks.curriculum.tuning import KEPT, RATES, candidates, shapes, tune
from benchmarks.curriculum.worlds import scratchpad
from cures_core.errors import ConfigError


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[Arm]]:
    """Arms of every rung. Their scores: best at 64 rollouts a step and twice the rate; the seed moves all of them."""
    rungs: list[list[Arm]] = []

    def run(arms: Sequence[Arm], jobs: int, out: Path) -> list[dict[str, Any]]:
        rungs.append(list(arms))
        return [{"points": [{"avg_at_1": end} for end in (0.0, 0.0, score(a), score(a))]} for a in arms]

    def score(arm: Arm) -> float:
        return 1 - abs(arm.curriculum.rollouts_per_step - 64) / 1000 + 10 * arm.training.learning_rate + arm.seed / 10

    monkeypatch.setattr(tuning, "run_arms", run)
    # The policy is not looked at: no arm is run.
    world = scratchpad.WORLD
    monkeypatch.setattr(
        tuning, "world_of", lambda _: type(world)(**{**vars(world), "base_policy": lambda _: Path("p")})
    )
    return rungs


def test_the_best_candidate_is_found_and_few_arms_have_the_whole_budget(runs: list[list[Arm]], tmp_path: Path) -> None:
    found = tune("scratchpad", "uniform", "waste", [0, 1], 4096, 3, 1, tmp_path)
    assert found.curriculum == {"prompts_per_step": 8, "rollouts_per_step": 64}
    assert found.training == {"learning_rate": pytest.approx(2 * 0.5 * scratchpad.WORLD.learning_rate)}
    num, third = len(candidates("uniform")), math.ceil(len(candidates("uniform")) / KEPT)
    assert [len(arms) for arms in runs] == [2 * n for n in (num, third, math.ceil(third / KEPT))]
    assert [{arm.budget for arm in arms} for arms in runs] == [{1024}, {2048}, {4096}]
    assert {arm.base for arms in runs for arm in arms} == {scratchpad.WORLD.tuning_base}
    tried = found.found["rungs"][0]["candidates"]
    assert len(tried) == num
    assert tried == sorted(tried, key=lambda row: -sum(row["scores"]))


def test_tuning_keeps_off_the_seeds_and_base_policies_of_the_results(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed 100: seeds from 100 on are for results"):
        tune("scratchpad", "uniform", "waste", [99, 100], 4096, 3, 1, tmp_path)
    assert scratchpad.WORLD.tuning_base not in scratchpad.WORLD.bases


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_candidates_that_are_all_different(method: str) -> None:
    found = candidates(method)
    assert len(found) == len({str(one) for one in found}) >= 2 * len(RATES)


def test_screening_keeps_its_share_of_prompts() -> None:
    screened = {"type": "cures", "allocation": {"type": "screen"}, "prompts_per_step": 40, "rollouts_per_step": 64}
    assert {(s["prompts_per_step"], s["rollouts_per_step"]) for s in shapes(screened)} == {
        (40, 64),
        (80, 128),
        (160, 256),
    }
