"""Results that stay: one JSON file a world under benchmarks/results/worlds, every arm with what it was made by.

Tables are made from these files alone. A GPU session's file is read the same way.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cures_core.files import write_atomic
from cures_core.jobs.assemble import versions
from cures_core.machine import processor

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "worlds"

Result = Mapping[str, Any]


def made_by(command: str, *packages: str) -> dict[str, Any]:
    """What an arm's figures depend on beside its settings: command, commit, versions (of `packages` too), processor,
    cores."""
    return {
        "command": command,
        "commit": _commit(),
        "versions": {**versions(), **{name: version(name) for name in packages}},
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
    }


def _commit() -> str:
    """Of this checkout, with `+` where tracked files differ from it; empty outside of one."""
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return told.stdout.strip()


def arm_name(result: Result) -> str:
    """Pool, method, base policy, seed and budget: an arm of the same name takes the place of the earlier one."""
    arm = result["arm"]
    return "-".join(str(arm[key]) for key in ("pool", "method", "base", "seed", "budget"))


def kept_result(kept: Mapping[str, Result], arm: Mapping[str, Any]) -> Result | None:
    """The result of an arm (`Arm` as JSON values, without `limit_s`) where it is kept, whole, and of just that arm."""
    found = kept.get(arm_name({"arm": arm}))
    return found if found is not None and found["done"] and found["arm"] == arm else None


def keep(world: str, results: Sequence[Result], made: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Put arms beside those that are kept; an arm that is kept just so already keeps what it was made by."""
    path = (folder or RESULTS) / f"{world}.json"
    kept = load(world, folder)
    for result in results:
        name, former = arm_name(result), kept.get(arm_name(result), {})
        if {**former, "made": None} != {**result, "made": None}:
            kept[name] = {**result, "made": dict(made)}
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(kept[name], sort_keys=True)}" for name in sorted(kept))
    write_atomic(path, f"{{\n{text}\n}}\n".encode())
    return path


def comparable(arms: Iterable[Result]) -> list[list[Result]]:
    """Arms of one pool with one budget together."""
    found: dict[tuple[str, int], list[Result]] = {}
    for arm in arms:
        found.setdefault((arm["arm"]["pool"], arm["arm"]["budget"]), []).append(arm)
    return list(found.values())


def load(world: str, folder: Path | None = None) -> dict[str, Result]:
    """Kept arms by name; none where nothing is kept of that world."""
    path = (folder or RESULTS) / f"{world}.json"
    found: dict[str, Result] = json.loads(path.read_bytes()) if path.exists() else {}
    return found
