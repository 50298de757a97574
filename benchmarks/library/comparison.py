"""Both arms over base policies and seeds, side by side: what the curriculum gains inside TRL, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.curriculum.kept import Result
from benchmarks.curriculum.report import compared
from benchmarks.curriculum.report import table as compared_table
from benchmarks.curriculum.side_by_side import Work, run_side_by_side
from benchmarks.curriculum.worlds.scratchpad import WORLD
from benchmarks.library.arm import CURRICULUM, UNIFORM, Arm

KEPT = Path(__file__).parents[1] / "results" / "library"


def compare(
    pool: str,
    bases: Sequence[int],
    seeds: Sequence[int],
    budget: int,
    learning_rate: float,
    jobs: int,
    out: Path,
    kept: Mapping[str, Result] | None = None,
    on_result: Callable[[Result], object] | None = None,
) -> list[Result]:
    """As `run_side_by_side`: both arms for every base policy and seed, with results in `out`."""
    policies = {base: str(WORLD.base_policy(base)) for base in bases}
    arms = [
        Arm(
            method=method,
            pool=pool,
            base=base,
            seed=seed,
            policy=policies[base],
            budget=budget,
            learning_rate=learning_rate,
        )
        for base in bases
        for seed in seeds
        for method in (UNIFORM, CURRICULUM)
    ]
    return run_side_by_side([_work(arm, out) for arm in arms], jobs, kept, on_result)


def table(arms: Sequence[Result]) -> list[str]:
    """Ratios to TRL without the curriculum, and the curriculum's share of the processor time."""
    shares = [arm["curriculum_seconds"] / arm["processor_seconds"] for arm in arms if arm["curriculum_seconds"]]
    lines = compared_table(compared(arms, UNIFORM))
    if shares:
        lines += ["", f"Asking and telling took {100 * max(shares):.2f} % of the processor time at most."]
    return lines


def _work(arm: Arm, out: Path) -> Work:
    place = out / arm.pool / f"{arm.method}-{arm.base}-{arm.seed}-{arm.budget}-{arm.learning_rate:g}.json"
    return Work("benchmarks.library.arm", arm.model_dump(mode="json"), place)
