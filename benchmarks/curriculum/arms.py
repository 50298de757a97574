"""Runs the arms of the curriculum benchmark side by side and writes curves, table and picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks.curriculum.analysis import analyse, curve
from benchmarks.curriculum.methods import METHODS, settings
from benchmarks.curriculum.pools import POOLS
from cures_core.config.loading import load_config
from cures_core.errors import ChildFailed, ConfigError
from cures_core.files import canonical_json, write_atomic
from cures_core.jobs.assemble import versions
from cures_core.report.charts import Series, line_chart
from tasks.runs.opening import open_run
from tasks.stages.prepare_policy import policy_folder, prepare_policy

_EVALUATE_EVERY = 1024  # rollouts
QUICKSTART = Path("configs/quickstart.toml")


def compare(
    pool: str, methods: Sequence[str], seeds: Iterable[int], budget: int, jobs: int, out: Path
) -> dict[str, Any]:
    """Every method with every seed; finished arms in `out` are not run again. Returns what curriculum.json holds.

    Raises `ConfigError` for unknown names, `ChildFailed` with the arm's last lines.
    """
    if pool not in POOLS:
        raise ConfigError(f"pool {pool!r}: use one of {', '.join(POOLS)}")
    if unknown := [m for m in methods if m not in METHODS]:
        raise ConfigError(f"method {unknown[0]!r}: use some of {', '.join(METHODS)}")
    policy = quickstart_policy()
    arms = [_arm(pool, method, seed, budget, policy) for seed in seeds for method in methods]
    with ThreadPoolExecutor(jobs) as workers:
        results = list(workers.map(lambda arm: _run(arm, out), arms))
    rows = analyse(results, methods[0])
    result = {
        "pool": pool,
        "budget": budget,
        "baseline": methods[0],
        "seeds": len({r["arm"]["seed"] for r in results}),
        "rows": [row.model_dump() for row in rows],
        "versions": versions(),
        "cores": len(os.sched_getaffinity(0)),
    }
    write_atomic(out / "curriculum.json", canonical_json(result))
    write_atomic(out / "curriculum.html", _page(result, results).encode())
    return result


def quickstart_policy() -> Path:
    """The quickstart's warm-started policy, from the store if it is there."""
    cfg = load_config(QUICKSTART)
    with open_run(cfg.model_copy(update={"name": "bench"})) as run:
        record = prepare_policy.__wrapped__(run)  # type: ignore[attr-defined]  # the stage itself, outside a flow
        return policy_folder(run, record)


def _arm(pool: str, method: str, seed: int, budget: int, policy: Path) -> dict[str, Any]:
    curriculum, training = settings(method)
    return {
        "method": method,
        "pool": pool,
        # Other prompts for every seed: a method should not be judged on one lucky pool.
        "pool_seed": 1000 + 10 * seed,
        "seed": seed,
        "budget": budget,
        "policy": str(policy),
        "curriculum": curriculum,
        "training": training.model_dump(mode="json"),
        "evaluate_every": max(1, _EVALUATE_EVERY // curriculum["rollouts_per_step"]),
    }


def _run(arm: dict[str, Any], out: Path) -> dict[str, Any]:
    from benchmarks.curriculum.arena import Arm

    try:
        checked = Arm.model_validate(arm).model_dump(mode="json")
    except ValidationError as error:
        raise ConfigError(f"arm {arm['method']}: {error}") from error
    folder = out / arm["pool"]
    name = f"{arm['method']}-{arm['seed']}-{arm['budget']}"
    spec, result = folder / f"{name}.arm.json", folder / f"{name}.json"
    if result.exists() and spec.exists() and json.loads(spec.read_bytes()) == checked:
        return json.loads(result.read_bytes())  # type: ignore[no-any-return]
    result.unlink(missing_ok=True)
    write_atomic(spec, canonical_json(checked))
    command = [sys.executable, "-m", "benchmarks.curriculum.arena", str(spec), str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ChildFailed(f"arm {name} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(result.read_bytes())  # type: ignore[no-any-return]


def _page(result: dict[str, Any], arms: Sequence[dict[str, Any]]) -> str:
    """Mean curves over the seeds, held-out and frontier, as one self-contained page."""
    charts = []
    for score, title in (("heldout_sampled", "Held-out prompts of the same mixture"), ("frontier_sampled", "Frontier")):
        series = []
        for method in dict.fromkeys(a["arm"]["method"] for a in arms):
            runs = [a for a in arms if a["arm"]["method"] == method]
            length = min(len(a["points"]) for a in runs)
            curves = [curve(a, score)[:length] for a in runs]
            x = [p["rollouts"] for p in runs[0]["points"][:length]]
            mean = [sum(values) / len(values) for values in zip(*curves, strict=True)]
            low = [min(values) for values in zip(*curves, strict=True)]
            high = [max(values) for values in zip(*curves, strict=True)]
            series.append(Series(method, x, mean, low, high))
        bottom = min(min(s.low) for s in series)
        top = max(max(s.high) for s in series)
        charts.append(f"<h2>{title}</h2>{line_chart(title, series, 'rollouts', 'pass rate', (bottom, top))}")
    style = files("cures_core.report").joinpath("style.css").read_text(encoding="utf-8")
    heading = f"Curriculum benchmark, pool {escape(result['pool'])}"
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{heading}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
        f"<body><main><h1>{heading}</h1><p>Mean over {result['seeds']} seeds; bands are lowest and highest.</p>"
        f"{''.join(charts)}</main></body></html>"
    )
