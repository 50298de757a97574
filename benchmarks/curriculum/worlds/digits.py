"""The digits world: the built-in task with different shares of solved and hopeless prompts; the quickstart's policy.

One completion alone is right, a digit a step: pass rates are exact and free, and training takes seconds. What wins here
need not win where right answers have many forms.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from benchmarks.curriculum.worlds.world import Pool, Sizes, World
from cures_core.builtin.chains import build_pool, build_suite
from cures_core.config.loading import load_config
from cures_core.config.policy import WarmStartPolicy
from cures_core.config.rewards import ExactConfig
from cures_core.config.rollout import HfRolloutConfig
from cures_core.errors import ConfigError
from cures_core.prompts import PromptSet, make_prompt

QUICKSTART = Path("configs/quickstart.toml")

PoolName = Literal["waste", "unlabelled", "hopeless", "hard", "mixed", "easy"]
# (share solved from the start, share mislabelled); the rest is worth training on.
SHARES: dict[PoolName, tuple[float, float]] = {
    "waste": (0.85, 0.05),
    "unlabelled": (0.85, 0.05),
    "hopeless": (0.15, 0.65),
    "hard": (0.0, 0.0),
    "mixed": (0.35, 0.0),
    "easy": (0.95, 0.0),
}
SIZES = Sizes(train=1600, heldout=1000, frontier=400)


def make_pool(name: str, seed: int, sizes: Sizes = SIZES) -> Pool:
    """Pool `name`; other seeds give other prompts of the same mixture.

    `unlabelled` is `waste` without source, level and subject, so that nothing but its own rollouts tells a prompt.
    """
    easy, hopeless = SHARES[name]  # type: ignore[index]
    frontier = (1 - easy - hopeless) / max(1e-9, 1 - hopeless)
    return Pool(
        _prompts(build_pool(sizes.train, seed, easy=easy, hopeless=hopeless), labels=name != "unlabelled"),
        _prompts(build_suite(sizes.heldout, seed + 1, frontier=frontier)),
        _prompts(build_suite(sizes.frontier, seed + 2, frontier=1.0)),
    )


def _prompts(rows: Sequence[dict[str, str]], labels: bool = True) -> PromptSet:
    names = ("source", "level", "subject") if labels else ()
    return PromptSet.of(make_prompt(r["problem"], r["answer"], *(r[n] for n in names)) for r in rows)


def examples(num: int, seed: int) -> PromptSet:
    """Half solved, half frontier, `num` for each of the five lengths in the mean."""
    return _prompts(build_suite(5 * num, seed, frontier=0.5))


def base_policy(seed: int) -> Path:
    """The quickstart's policy from a warm start of this seed, out of the store if it is there. Relative to the working
    directory: it is part of what an arm is."""
    from tasks.runs.opening import open_run
    from tasks.stages.prepare_policy import policy_folder, prepare_policy

    cfg = load_config(QUICKSTART)
    if not isinstance(cfg.policy, WarmStartPolicy):
        raise ConfigError(f"{QUICKSTART}: the benchmark needs policy.type = 'warm-start'")
    policy = cfg.policy.model_copy(update={"seed": seed})
    name = "bench" if seed == cfg.policy.seed else f"bench-{seed}"
    with open_run(cfg.model_copy(update={"name": name, "policy": policy}), "benchmark") as run:
        record = prepare_policy.__wrapped__(run)  # type: ignore[attr-defined]  # the stage itself, outside a flow
        return Path(os.path.relpath(policy_folder(run, record)))


WORLD = World(
    name="digits",
    pools=tuple(SHARES),
    sizes=SIZES,
    make_pool=make_pool,
    examples=examples,
    base_policy=base_policy,
    bases=(4, 10, 11),
    tuning_base=0,
    rollout=HfRolloutConfig(max_new_tokens=6),
    reward=ExactConfig(),
    exact=True,
    score="heldout_sampled",
    length_norm=4.0,
    evaluate_every=1024,  # it costs nothing here
)
