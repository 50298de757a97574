"""Draws curriculum.png: `python docs/images/curriculum.py REPORT.json`, with the report.json that a run has made."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from cures_core.curriculum.allocation import allocate
from cures_core.curriculum.beta import expected_spread

mpl.use("agg")
from matplotlib import pyplot as plt

_DRAWS = 20_000
_RATES = np.linspace(0.005, 0.995, 100)


def weights(axes: Any) -> None:
    """Mean weight (p (1 - p))^2 of draws from posteriors of one mean and more and more evidence, largest = 1."""
    rng = np.random.default_rng(0)
    for rollouts, style in ((1, ":"), (4, "--"), (16, "-")):
        p = rng.beta(rollouts * _RATES[:, None], rollouts * (1 - _RATES)[:, None], (len(_RATES), _DRAWS))
        axes.plot(_RATES, 16 * ((p * (1 - p)) ** 2).mean(axis=1), style, color="C0", label=f"evidence of {rollouts}")
    axes.plot(_RATES, 16 * (_RATES * (1 - _RATES)) ** 2, color="C1", label="if p were known")
    axes.plot(_RATES, 2 * np.sqrt(_RATES * (1 - _RATES)), color="0.6", lw=1, label="spread itself")
    axes.set(xlabel="expected pass rate", ylabel="weight", title="Which prompts: the weight of a prompt")
    axes.legend(fontsize=7)


def allocation(axes: Any) -> None:
    """Expected rollouts against the step's mean, of prompts with expected pass rates from 0 to 1, by way to split them.

    Equal and Neyman: 256 rollouts of 32 prompts; screen: 64 of 40, of which half fail the first.
    """
    rates = np.linspace(0.02, 0.98, 32)
    sigma = expected_spread(8 * rates, 8 * (1 - rates))
    axes.axhline(1, color="0.6", label='allocation "equal"')
    axes.step(rates, allocate(sigma, 256, 2, 32) / 8, where="mid", label='allocation "neyman"')
    axes.plot(rates, (1 + (1 - rates) * (64 - 40) / 20) / (64 / 40), color="C1", label='allocation "screen"')
    axes.set(xlabel="expected pass rate", ylabel="rollouts / mean", ylim=(0, None), title="How many rollouts")
    axes.legend(fontsize=7)


def movement(axes: Any, report: dict[str, Any]) -> None:
    """Prompts by expected pass rate: the prior, the middle of the run, and the end."""
    beliefs = report["posteriors"]
    for belief in (beliefs[0], beliefs[len(beliefs) // 2], beliefs[-1]):
        counts = np.maximum(belief["histogram"], 0.5)
        axes.stairs(counts, np.linspace(0, 1, len(counts) + 1), label=belief["label"])
    axes.set(yscale="log", xlabel="expected pass rate", ylabel="prompts", title="Belief over a run")
    axes.legend(fontsize=7)


def calibration(axes: Any, report: dict[str, Any]) -> None:
    """Predicted against observed pass rates of the drawn prompts; the area of a point is its number of rollouts."""
    bins = report["reliability"]
    sizes = np.array([b["rollouts"] for b in bins])
    axes.plot([0, 1], [0, 1], color="0.6", lw=1)
    axes.scatter([b["predicted"] for b in bins], [b["observed"] for b in bins], 10 + 150 * sizes / sizes.max())
    axes.set(xlabel="predicted pass rate", ylabel="observed", title="Calibration, before every step")


def main() -> None:
    report = json.loads(Path(sys.argv[1]).read_bytes())
    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
    weights(a)
    allocation(b)
    movement(c, report)
    calibration(d, report)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=90)


if __name__ == "__main__":
    main()
