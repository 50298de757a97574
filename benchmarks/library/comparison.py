"""Both arms over base policies and seeds, side by side: what the curriculum gains inside TRL, and what it costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.curriculum.kept import Result, kept_result
from benchmarks.curriculum.report import compared
from benchmarks.curriculum.report import table as compared_table
from benchmarks.curriculum.worlds.scratchpad import WORLD
from benchmarks.library.arm import CURRICULUM, UNIFORM, Arm
from cures_core.countdown import Countdown
from cures_core.errors import ChildFailed
from cures_core.files import canonical_json, write_atomic

KEPT = Path(__file__).parents[1] / "results" / "library"


def compare(
    pool: str,
    bases: Sequence[int],
    seeds: Sequence[int],
    budget: int,
    jobs: int,
    out: Path,
    kept: Mapping[str, Result] | None = None,
    on_result: Callable[[Result], object] | None = None,
) -> list[Result]:
    """Results of the arms, each told to `on_result`; those in `out` and those that are `kept` are not run again.

    `jobs` at once, each on one core. Raises `ChildFailed` with an arm's last lines.
    """
    policies = {base: str(WORLD.base_policy(base)) for base in bases}
    arms = [
        Arm(method=method, pool=pool, base=base, seed=seed, policy=policies[base], budget=budget)
        for base in bases
        for seed in seeds
        for method in (UNIFORM, CURRICULUM)
    ]
    countdown = Countdown("arms", len(arms))
    found = []
    with ThreadPoolExecutor(jobs) as workers:
        for result in workers.map(
            lambda arm: kept_result(kept or {}, arm.model_dump(mode="json")) or _run(arm, out, countdown), arms
        ):
            found.append(result)
            if on_result is not None:
                on_result(result)
    return found


def table(arms: Sequence[Result]) -> list[str]:
    """Ratios to TRL without the curriculum, and the curriculum's share of the processor time."""
    shares = [arm["curriculum_seconds"] / arm["processor_seconds"] for arm in arms if arm["curriculum_seconds"]]
    lines = compared_table(compared(arms, UNIFORM))
    if shares:
        lines += ["", f"Asking and telling took {100 * max(shares):.2f} % of the processor time at most."]
    return lines


def _run(arm: Arm, out: Path, countdown: Countdown) -> Result:
    spec = arm.model_dump(mode="json")
    place = out / arm.pool / f"{arm.method}-{arm.base}-{arm.seed}-{arm.budget}.json"
    settings = place.with_suffix(".arm.json")
    if place.exists() and settings.exists() and json.loads(settings.read_bytes()) == spec:
        countdown.found()
    else:
        place.unlink(missing_ok=True)
        write_atomic(settings, canonical_json(spec))
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.library.arm", str(settings), str(place)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ChildFailed(f"arm {place.stem} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
        countdown.done(place.stem)
    result: dict[str, Any] = json.loads(place.read_bytes())
    return result
