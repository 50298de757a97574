"""The arms of methods, from the settings of a world; run side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks.curriculum.arm import Arm
from benchmarks.curriculum.kept import Result
from benchmarks.curriculum.methods import ABORTING, METHODS, settings
from benchmarks.curriculum.side_by_side import Work, run_side_by_side
from benchmarks.curriculum.tuned import Tuned, load_tuned
from benchmarks.curriculum.worlds import world_of
from benchmarks.curriculum.worlds.world import World
from cures_core.errors import ConfigError

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
    """As `run_side_by_side`, with results in `out`."""
    return run_side_by_side([_work(arm, out) for arm in arms], jobs, kept, on_result)


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


def _work(arm: Arm, out: Path) -> Work:
    shape = f"{arm.curriculum.prompts_per_step}x{arm.curriculum.rollouts_per_step}-{arm.training.learning_rate:g}"
    name = f"{arm.method}-{arm.base}-{arm.seed}-{arm.budget}-{shape}"
    place = out / arm.world / arm.pool / f"{name}.json"
    return Work("benchmarks.curriculum.arm", arm.model_dump(mode="json"), place, not_the_arm=("limit_s",))
