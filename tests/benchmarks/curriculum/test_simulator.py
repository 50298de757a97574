"""The default strategy in simulated training: wrong labels, drifting policies, large pools; and the simulator."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.curriculum.simulator import World, fitted, misfit, simulate
from cures_core.config.curriculum import CuresConfig, PosteriorConfig, UniformConfig

CURES = CuresConfig(prompts_per_step=32, rollouts_per_step=256)
UNIFORM = UniformConfig(prompts_per_step=32, rollouts_per_step=256)


def end(world: World, strategy: CuresConfig | UniformConfig, steps: int = 150, seed: int = 0) -> dict[str, float]:
    result = simulate(world, strategy, steps, seed)[1]
    return {**result["points"][-1], "mae": result["calibration"]["mae"], "error": result["posterior_error"]}


def test_training_raises_pass_rates_and_is_the_same_twice() -> None:
    first, again = (simulate(World(), UNIFORM, 60, 3)[1]["points"] for _ in range(2))
    assert first == again
    assert first[-1]["frontier"] > first[0]["frontier"] + 0.05


@pytest.mark.parametrize("field", ["learning_rate", "wrong_gold", "drift", "frontier_logit", "solved_logit"])
def test_every_property_of_the_world_matters(field: str) -> None:
    changed = World().model_copy(update={field: getattr(World(), field) + 0.1})
    assert simulate(changed, UNIFORM, 20, 0)[1]["points"][-1] != simulate(World(), UNIFORM, 20, 0)[1]["points"][-1]


def test_the_default_learns_the_frontier_of_a_wasteful_pool_faster() -> None:
    assert end(World(), CURES)["frontier"] > end(World(), UNIFORM)["frontier"] + 0.05


def test_wrong_gold_answers_are_found_and_do_not_stop_it() -> None:
    world = World(wrong_gold=0.05)
    curriculum, result = simulate(world, CURES, 300, 0)
    assert result["points"][-1]["frontier"] > end(world, UNIFORM, steps=300)["frontier"]
    dead = curriculum.posterior.dead() > 0.5
    succeeded = curriculum.posterior.successes > 0
    assert dead.sum() >= 20
    assert not (dead & succeeded).any()


def test_fading_follows_a_policy_that_moves_by_itself() -> None:
    world = World(drift=0.15, pool="mixed")
    stubborn = CURES.model_copy(update={"posterior": PosteriorConfig(fading=1.0, group_fading=1.0)})
    assert end(world, CURES)["mae"] < end(world, stubborn)["mae"]


def test_no_prompt_is_given_up_in_a_long_run() -> None:
    curriculum, _ = simulate(World(prompts=300), CURES, 600, 0)
    last = curriculum.posterior.touched
    assert (last > 0).all()
    assert np.quantile(last, 0.02) > 300  # what is solved or hopeless comes back within half of the run


@pytest.mark.slow
def test_a_million_prompts() -> None:
    curriculum, result = simulate(World(prompts=1_000_000, wrong_gold=0.05), CURES, 300, 0)
    uniform = end(World(prompts=1_000_000, wrong_gold=0.05), UNIFORM, steps=300)
    assert len(curriculum.prompts) == 1_000_000
    assert result["points"][-1]["frontier"] > uniform["frontier"]
    assert result["seconds"] / 300 < 1.0


def test_it_is_fitted_to_a_real_arm() -> None:
    true = World(learning_rate=0.02, frontier_logit=-2.0)
    points = simulate(true, UNIFORM, 60, 5)[1]["points"]
    real = {"points": [{**p, "heldout_sampled": p["heldout"], "frontier_sampled": p["frontier"]} for p in points]}
    found, error = fitted(World(), real, UNIFORM, 0)
    assert error == misfit(real, simulate(found, UNIFORM, 60, 0)[1], "frontier") < 0.05
    assert found.learning_rate == pytest.approx(0.02, rel=0.6)
