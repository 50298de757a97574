"""`python -m benchmarks simulate`: rows, the fit to real arms, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.curriculum.methods import settings
from benchmarks.curriculum.simulations import run_simulations
from benchmarks.curriculum.simulator import World, simulate
from cures_core.config.curriculum import UniformConfig
from cures_core.errors import ConfigError, MissingInput


def test_one_row_a_method() -> None:
    result = run_simulations(World(prompts=200, heldout=200), ["uniform", "cures"], 1, 20, None)
    assert [row["method"] for row in result["rows"]] == ["uniform", "cures"]
    uniform, cures = (row["rollouts"] for row in result["rows"])
    assert uniform == 20 * settings("uniform")[0]["rollouts_per_step"]
    screened = settings("cures")[0]
    assert 20 * screened["prompts_per_step"] < cures < 20 * screened["rollouts_per_step"]
    assert all(row["misfit"] is None for row in result["rows"])


def test_it_is_fitted_to_real_arms_and_says_how_far_off_it_is(tmp_path: Path) -> None:
    curriculum = UniformConfig(prompts_per_step=32, rollouts_per_step=256)
    points = simulate(World(learning_rate=0.03), curriculum, 40, 1)[1]["points"]
    arm = {"points": [{**p, "heldout_sampled": p["heldout"], "frontier_sampled": p["frontier"]} for p in points]}
    (tmp_path / "waste").mkdir()
    (tmp_path / "waste/uniform-0-10240.json").write_text(json.dumps(arm))
    (tmp_path / "waste/uniform-0-10240.arm.json").write_text("{}")
    result = run_simulations(World(prompts=200), ["uniform", "cures"], 1, 20, tmp_path)
    assert result["world"]["learning_rate"] == pytest.approx(0.03, rel=0.6)
    assert result["world"]["prompts"] == 200
    assert [row["misfit"] is None for row in result["rows"]] == [False, True]


def test_what_is_missing_or_unknown_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="oracle"):
        run_simulations(World(), ["oracle"], 1, 1, None)
    with pytest.raises(MissingInput, match="benchmarks curriculum"):
        run_simulations(World(), ["uniform"], 1, 1, tmp_path)
