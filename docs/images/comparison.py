"""Draws comparison.png: `python docs/images/comparison.py FOLDER METHOD...`, the folder `OUT/digits` that `python -m
benchmarks curriculum` has filled: held-out pass rate against rollouts on each pool, mean and range over seeds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from benchmarks.curriculum.analysis import curve

mpl.use("agg")
from matplotlib import pyplot as plt

_POOLS = ("waste", "hard", "mixed", "easy")


def arms(folder: Path, method: str) -> list[dict[str, Any]]:
    """Results of one method, one a seed."""
    found = [json.loads(path.read_bytes()) for path in folder.glob(f"{method}-*.json") if ".arm." not in path.name]
    return [arm for arm in found if arm["arm"]["method"] == method]


def draw(axes: Any, folder: Path, methods: list[str]) -> None:
    """One pool."""
    for i, method in enumerate(methods):
        runs = arms(folder, method)
        end = min(run["points"][-1]["rollouts"] for run in runs)
        x = np.linspace(0, end, 200)
        y = np.array([np.interp(x, [p["rollouts"] for p in r["points"]], curve(r, "heldout_sampled")) for r in runs])
        style = {"color": "0.3", "ls": ":"} if method == "oracle" else {"color": f"C{i}"}
        axes.plot(x / 1000, y.mean(axis=0), label=method, **style)
        axes.fill_between(x / 1000, y.min(axis=0), y.max(axis=0), color=style["color"], alpha=0.12, lw=0)
    axes.set(title=f"pool {folder.name}", xlabel="thousands of rollouts", ylabel="held-out pass rate")


def main() -> None:
    root, methods = Path(sys.argv[1]), sys.argv[2:]
    pools = [root / name for name in _POOLS if (root / name).is_dir()]
    rows = -(-len(pools) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(9, 3.3 * rows), layout="constrained")
    for one, pool in zip(axes.flat, pools, strict=False):
        draw(one, pool, methods)
    for one in axes.flat[len(pools) :]:
        one.axis("off")
    axes.flat[0].legend(fontsize=7)
    figure.savefig(Path(__file__).with_name("comparison.png"), dpi=75)


if __name__ == "__main__":
    main()
