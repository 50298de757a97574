"""Both arms over some seeds, side by side: what the curriculum gains inside TRL, and what it costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.curriculum.base_policies import warm_started
from benchmarks.curriculum.worlds.scratchpad import LESSON, POLICY
from benchmarks.library.arm import Arm
from cures_core.countdown import Countdown
from cures_core.files import canonical_json, write_atomic

METHODS: tuple[Literal["uniform", "curriculum"], ...] = ("uniform", "curriculum")


def compare(out: Path, seeds: Sequence[int], steps: int, warm_start_steps: int, jobs: int) -> dict[str, Any]:
    """Run the arms that are not in `out` yet, `jobs` at once, each on one core; returns what `table` prints."""
    policy = warm_started("scratchpad", POLICY.model_copy(update={"steps": warm_start_steps}), LESSON)
    arms = [Arm(method=m, seed=seed, policy=str(policy), steps=steps) for seed in seeds for m in METHODS]
    countdown = Countdown("arms", len(arms))
    with ThreadPoolExecutor(jobs) as pool:
        rows = list(pool.map(lambda arm: _row(arm, out, countdown), arms))
    return {"steps": steps, "seeds": list(seeds), "arms": rows, "paired": paired(rows)}


def paired(rows: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """At each evaluation: mean accuracy of both, and mean and standard error of their difference by seed."""
    by_seed = {(row["method"], row["seed"]): [point["accuracy"] for point in row["curve"]] for row in rows}
    seeds = sorted({seed for _, seed in by_seed})
    one, two = (np.array([by_seed[m, seed] for seed in seeds]) for m in METHODS)
    error = (two - one).std(axis=0, ddof=1) / len(seeds) ** 0.5 if len(seeds) > 1 else np.full(one.shape[1], np.nan)
    return [
        {"rollouts": point["rollouts"], "uniform": a, "curriculum": b, "gain": b - a, "error": e}
        for point, a, b, e in zip(rows[0]["curve"], one.mean(axis=0), two.mean(axis=0), error, strict=True)
    ]


def table(result: dict[str, Any]) -> list[str]:
    lines = [f"{'rollouts':>9} {'uniform':>8} {'curriculum':>10} {'gain':>7}   (accuracy on the held-out frontier)"]
    for p in result["paired"]:
        gain = f"{p['gain']:>+7.3f} +- {p['error']:.3f}"
        lines.append(f"{p['rollouts']:>9,} {p['uniform']:>8.3f} {p['curriculum']:>10.3f} {gain}")
    for method in METHODS:
        rows = [row for row in result["arms"] if row["method"] == method]
        informative = np.mean([np.mean(row["informative"]) for row in rows])
        tokens, seconds = (np.mean([row[name] for row in rows]) for name in ("tokens", "processor_seconds"))
        lines.append(
            f"{method}: {100 * informative:.0f} % of the groups informative, {tokens:,.0f} tokens, {seconds:,.0f} s"
        )
    return lines


def _row(arm: Arm, out: Path, countdown: Countdown) -> dict[str, Any]:
    place = out / f"{arm.method}-{arm.seed}-{arm.steps}.json"
    if place.exists():
        countdown.found()
    else:
        settings = place.with_suffix(".arm.json")
        write_atomic(settings, canonical_json(arm.model_dump(mode="json")))
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.library.arm", str(settings), str(place)]
        with place.with_suffix(".log").open("w") as log:
            subprocess.run(command, env=env, check=True, stdout=log, stderr=log)
        countdown.done(place.stem)
    row: dict[str, Any] = json.loads(place.read_bytes())
    return row
