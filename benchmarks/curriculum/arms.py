"""Runs arms side by side, each in a process of its own, and keeps what they gave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks.curriculum.arm import Arm
from benchmarks.curriculum.kept import Result, kept_result
from benchmarks.curriculum.methods import ABORTING, METHODS, settings
from benchmarks.curriculum.tuned import Tuned, load_tuned
from benchmarks.curriculum.worlds import world_of
from benchmarks.curriculum.worlds.world import World
from cures_core.countdown import Countdown
from cures_core.errors import ChildFailed, ConfigError
from cures_core.files import canonical_json, write_atomic

_SMALL = 64  # rollouts of a step that counts as a small one


def make_arm(
    world: World,
    method: str,
    pool: str,
    base: int,
    seed: int,
    budget: int,
    policy: str,
    *,
    tuned: Tuned | None = None,
    **fields: Any,
) -> Arm:
    """The arm of a method: settings tuned in this world where there are some, else those found in `digits`, with the
    learning rate in proportion to the world's own. `fields` are those of `Arm`. Raises `ConfigError`."""
    if pool not in world.pools:
        raise ConfigError(f"pool {pool!r} of world {world.name}: use one of {', '.join(world.pools)}")
    if method not in METHODS:
        raise ConfigError(f"method {method!r}: use some of {', '.join(METHODS)}")
    tuned = load_tuned(world.name).get(method, Tuned()) if tuned is None else tuned
    curriculum, training = settings(method)
    curriculum = {**curriculum, **tuned.curriculum}
    small = curriculum["rollouts_per_step"] <= _SMALL
    rate = world.learning_rate * (world.small_steps if small else 1.0) * training.learning_rate / 5e-4
    own = training.model_dump(mode="json", exclude_defaults=True)
    own |= {"type": "torch", "learning_rate": rate, "length_norm": world.length_norm}
    if world.device == "cuda":
        own["micro_batch_tokens"] = 32_768
    values = {
        "world": world.name,
        "method": method,
        "pool": pool,
        # Other prompts for every seed: a method should not be judged on one lucky pool.
        "pool_seed": 1000 + 10 * seed,
        "base": base,
        "seed": seed,
        "budget": budget,
        "policy": policy,
        "curriculum": curriculum,
        "training": {**own, **tuned.training},
        "evaluate_every": world.evaluate_every,
        "train": world.sizes.train,
        "heldout": world.sizes.heldout,
        "frontier": world.sizes.frontier,
        "max_new_tokens": world.rollout.max_new_tokens,
        "device": world.device,
        "dtype": world.dtype,
        "abort": ABORTING.get(method),
    }
    try:
        return Arm.model_validate({**values, **fields})
    except ValidationError as error:
        raise ConfigError(f"arm {method} in world {world.name}: {error}") from error


def run_arms(
    arms: Sequence[Arm],
    jobs: int,
    out: Path,
    kept: Mapping[str, Result] | None = None,
    on_result: Callable[[Result], object] | None = None,
) -> list[Result]:
    """Results in the order of the arms, `jobs` at once, each told to `on_result` in this order; finished arms in `out`
    and those that are `kept` are not run again.

    Raises `ChildFailed` with an arm's last lines.
    """
    countdown = Countdown("arms", len(arms))

    def result(arm: Arm) -> Result:
        return kept_result(kept or {}, arm.model_dump(mode="json", exclude={"limit_s"})) or _run(arm, out, countdown)

    found = []
    with ThreadPoolExecutor(jobs) as workers:
        for one in workers.map(result, arms):
            found.append(one)
            if on_result is not None:
                on_result(one)
    return found


def compare(
    world_name: str,
    pool: str,
    methods: Sequence[str],
    bases: Sequence[int],
    seeds: Iterable[int],
    budget: int,
    jobs: int,
    out: Path,
    kept: Mapping[str, Result] | None = None,
    on_result: Callable[[Result], object] | None = None,
) -> list[Result]:
    """Every method with every base policy and seed; the rest as `run_arms`. Raises `ConfigError`, `ChildFailed`."""
    world = world_of(world_name)
    for method in methods:  # all names before any work
        make_arm(world, method, pool, 0, 0, budget, ".")
    policies = {base: str(world.base_policy(base)) for base in bases}
    arms = [
        make_arm(world, method, pool, base, seed, budget, policies[base])
        for seed in seeds
        for base in bases
        for method in methods
    ]
    return run_arms(arms, jobs, out, kept, on_result)


def _run(arm: Arm, out: Path, countdown: Countdown) -> dict[str, Any]:
    spec = arm.model_dump(mode="json")
    folder = out / arm.world / arm.pool
    shape = f"{arm.curriculum.prompts_per_step}x{arm.curriculum.rollouts_per_step}-{arm.training.learning_rate:g}"
    name = f"{arm.method}-{arm.base}-{arm.seed}-{arm.budget}-{shape}"
    place, result = folder / f"{name}.arm.json", folder / f"{name}.json"
    if result.exists() and place.exists() and json.loads(place.read_bytes()) == spec:
        kept: dict[str, Any] = json.loads(result.read_bytes())
        if kept["done"]:
            countdown.found()
            return kept
    result.unlink(missing_ok=True)
    write_atomic(place, canonical_json(spec))
    command = [sys.executable, "-m", "benchmarks.curriculum.arm", str(place), str(result)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode != 0:
        raise ChildFailed(f"arm {name} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(result.read_bytes())
    end = found["points"][-1]
    countdown.done(f"{arm.world} {arm.pool} {name}: {end[world_of(arm.world).score]:.3f} in {found['wall']:.0f} s")
    return found
