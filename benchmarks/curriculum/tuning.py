"""The same search for every method: successive halving over learning rate, group size and batch on tuning seeds.

All candidates run with a quarter of the budget (with three rungs), the better third with half of it, the best of those,
two at least, with all of it: learning starts late, so that smaller beginnings would mislead. The tuning seeds and the
base policy are not among those that results are reported on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.curriculum.arms import make_arm, run_arms
from benchmarks.curriculum.methods import settings
from benchmarks.curriculum.tuned import Tuned
from benchmarks.curriculum.worlds import world_of
from cures_core.errors import ConfigError

RATES = (0.5, 1.0, 2.0)
"""Times the rate that a method has untuned."""
KEPT = 3  # of so many candidates one goes on
FINALISTS = 2  # at least: what is slower at first often ends higher
_GROUPS = ((32, 8), (64, 4), (32, 4), (16, 8), (8, 8))  # prompts x rollouts of each
_SCREENED = (64, 128, 256)  # rollouts of a step

Candidate = dict[str, dict[str, Any]]


def candidates(method: str) -> list[Candidate]:
    """Shapes of a step times factors of the rate: what a method may become. `training.rate` is the factor."""
    curriculum, _ = settings(method)
    return [{"curriculum": s, "training": {"rate": r}} for s, r in product(shapes(curriculum), RATES)]


def shapes(curriculum: dict[str, Any]) -> list[dict[str, int]]:
    """Steps that a strategy may take: groups of equal size, or as many screened or single prompts to a rollout as it
    has."""
    if curriculum.get("allocation", {}).get("type") in ("screen", "single"):
        share = curriculum["prompts_per_step"] / curriculum["rollouts_per_step"]
        return [{"prompts_per_step": round(share * n), "rollouts_per_step": n} for n in _SCREENED]
    if curriculum["type"] == "dapo":
        return [{"prompts_per_step": p, "group_size": n, "rollouts_per_step": 4 * p * n} for p, n in ((16, 8), (8, 8))]
    return [{"prompts_per_step": p, "rollouts_per_step": p * n} for p, n in _GROUPS]


def tune(
    world_name: str, method: str, pool: str, seeds: Sequence[int], budget: int, rungs: int, jobs: int, out: Path
) -> Tuned:
    """The best candidate by mean score over the last quarter of its arms. Arms in `out` are not run again.

    Raises `ConfigError` for seeds that results are reported on, and as arms do.
    """
    if taken := [seed for seed in seeds if seed >= REPORTED]:
        raise ConfigError(f"seed {taken[0]}: seeds from {REPORTED} on are for results; tune on smaller ones")
    world = world_of(world_name)
    base = world.tuning_base
    policy = str(world.base_policy(base))
    left, tried = candidates(method), []
    for rung in range(rungs):
        spent = budget // 2 ** (rungs - 1 - rung)
        arms = []
        for one in left:
            for seed in seeds:
                arm = make_arm(
                    world, method, pool, base, seed, spent, policy, tuned=Tuned(curriculum=one["curriculum"])
                )
                rate = arm.training.learning_rate * one["training"]["rate"]
                arms.append(
                    arm.model_copy(update={"training": arm.training.model_copy(update={"learning_rate": rate})})
                )
        results = run_arms(arms, jobs, out)
        scores = np.array([_score(result, world.score) for result in results]).reshape(len(left), len(seeds))
        order = np.argsort(-scores.mean(axis=1), kind="stable")
        tried.append(
            {
                "rollouts": spent,
                "candidates": [
                    {
                        **left[i]["curriculum"],
                        "learning_rate": arms[i * len(seeds)].training.learning_rate,
                        "scores": [round(float(score), 4) for score in scores[i]],
                    }
                    for i in order
                ],
            }
        )
        best = arms[int(order[0]) * len(seeds)]
        left = [left[i] for i in order[: max(FINALISTS, math.ceil(len(left) / KEPT))]]
    chosen = {name: tried[-1]["candidates"][0][name] for name in left[0]["curriculum"]}
    return Tuned(
        curriculum=chosen,
        training={"learning_rate": best.training.learning_rate},
        found={"pool": pool, "base": base, "seeds": list(seeds), "rungs": tried},
    )


REPORTED = 100
"""Seeds from here on are those of results."""


def _score(result: Mapping[str, Any], name: str) -> float:
    """Mean of the last quarter of the points, at least two: single evaluations wander."""
    points = result["points"]
    return float(np.mean([p[name] for p in points[-max(2, len(points) // 4) :]]))
