"""Simulated training of large pools with several strategies, and how far the simulation is from real arms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from benchmarks.curriculum.methods import METHODS, settings
from benchmarks.curriculum.simulator import World, fitted, misfit, simulate
from cures_core.config.curriculum import CurriculumConfig
from cures_core.errors import ConfigError, MissingInput

_CONFIG: TypeAdapter[Any] = TypeAdapter(CurriculumConfig)


def run_simulations(
    world: World, methods: Sequence[str], seeds: int, steps: int, against: Path | None
) -> dict[str, Any]:
    """Every method with every seed. With `against`, a folder of `python -m benchmarks curriculum`, the world is first
    fitted to a real arm of the first method, and each method's misfit to its own real arm is reported.

    Raises `ConfigError` for unknown methods, `MissingInput` where the folder has no arm of the first method.
    """
    if unknown := [m for m in methods if m not in METHODS or m == "oracle"]:
        raise ConfigError(f"method {unknown[0]!r}: use some of {', '.join(m for m in METHODS if m != 'oracle')}")
    strategies = {name: _CONFIG.validate_python(settings(name)[0]) for name in methods}
    fit: dict[str, float] = {}
    if against is not None:
        base = methods[0]
        arm = _arm(against, world.pool, base)
        if arm is None:
            raise MissingInput(
                f"{against}: no arm of {base} on pool {world.pool}; run `python -m benchmarks curriculum` first"
            )
        small = world.model_copy(update={"prompts": 1600, "wrong_gold": 0.0, "drift": 0.0})
        found, _ = fitted(small, arm, strategies[base], 0)
        for name, strategy in strategies.items():
            if (real := _arm(against, world.pool, name)) is not None:
                last = int(real["points"][-1]["step"])
                fit[name] = round(misfit(real, simulate(found, strategy, last, 0)[1], "frontier"), 4)
        moved = {key: getattr(found, key) for key in ("frontier_logit", "solved_logit", "learning_rate")}
        world = world.model_copy(update=moved)
    rows = []
    for name, strategy in strategies.items():
        ends = [simulate(world, strategy, steps, seed)[1] for seed in range(seeds)]
        seconds = sum(end["seconds"] for end in ends) / (seeds * steps)
        last_points = [end["points"][-1] for end in ends]
        row: dict[str, Any] = {"method": name, "step_ms": round(1000 * seconds, 2)}
        row |= {key: _mean([p[key] for p in last_points]) for key in ("rollouts", "heldout", "frontier")}
        row["informative_share"] = _mean([p["informative_share"] for end in ends for p in end["points"][1:]])
        row["posterior_error"] = _mean([end["posterior_error"] for end in ends])
        row["calibration_mae"] = _mean([end["calibration"]["mae"] for end in ends])
        row["misfit"] = fit.get(name)
        rows.append(row)
    return {"world": world.model_dump(), "steps": steps, "seeds": seeds, "rows": rows}


def _arm(folder: Path, pool: str, method: str) -> dict[str, Any] | None:
    """The first real arm of a method in a folder that `python -m benchmarks curriculum` has filled."""
    found = sorted(p for p in (folder / pool).glob(f"{method}-*.json") if not p.name.endswith(".arm.json"))
    return json.loads(found[0].read_bytes()) if found else None


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)
