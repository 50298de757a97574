"""Runs arms side by side, each in a process of its own with one core, and keeps what they gave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.curriculum.kept import Result, kept_result
from benchmarks.curriculum.worlds import world_of
from cures_core.countdown import Countdown
from cures_core.errors import ChildFailed
from cures_core.files import canonical_json, write_atomic


@dataclass(frozen=True)
class Work:
    """An arm, and the process that runs it."""

    module: str
    """`python -m MODULE SPEC RESULT`: reads an arm as JSON, writes its result."""
    spec: Mapping[str, Any]
    """The arm as JSON values."""
    result: Path
    """Where its result goes; the spec lies beside it."""
    not_the_arm: tuple[str, ...] = ()
    """Fields of the spec that say nothing of what the arm is."""

    @property
    def arm(self) -> dict[str, Any]:
        return {name: value for name, value in self.spec.items() if name not in self.not_the_arm}


def run_side_by_side(
    works: Sequence[Work],
    jobs: int,
    kept: Mapping[str, Result] | None = None,
    on_result: Callable[[Result], object] | None = None,
) -> list[Result]:
    """Results in the order of the arms, `jobs` at once, each told to `on_result` in this order; finished arms whose
    result is there, and those that are `kept`, are not run again.

    Raises `ChildFailed` with an arm's last lines.
    """
    countdown = Countdown("arms", len(works))

    def result(work: Work) -> Result:
        return kept_result(kept or {}, work.arm) or _run(work, countdown)

    found = []
    with ThreadPoolExecutor(jobs) as workers:
        for one in workers.map(result, works):
            found.append(one)
            if on_result is not None:
                on_result(one)
    return found


def _run(work: Work, countdown: Countdown) -> Result:
    name, place = work.result.stem, work.result.with_suffix(".arm.json")
    if work.result.exists() and place.exists() and json.loads(place.read_bytes()) == work.spec:
        there: Result = json.loads(work.result.read_bytes())
        if there["done"]:
            countdown.found()
            return there
    work.result.unlink(missing_ok=True)
    write_atomic(place, canonical_json(dict(work.spec)))
    command = [sys.executable, "-m", work.module, str(place), str(work.result)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode != 0:
        raise ChildFailed(f"arm {name} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    found: Result = json.loads(work.result.read_bytes())
    arm, end = found["arm"], found["points"][-1]
    score = end[world_of(arm["world"]).score]
    countdown.done(f"{arm['world']} {arm['pool']} {name}: {score:.3f} in {found['wall']:.0f} s")
    return found
