"""From curves to claims: rollouts to a score, ratios to a baseline with intervals over seeds.

A target is a fixed score: the baseline's mean final score, or the start plus 90 % of the baseline's gain. An arm that
never gets there counts with its whole budget, so that a ratio is then a bound and marked as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cures_core.config.base import Strict

Floats = npt.NDArray[np.float64]
COUNTERS = ("rollouts", "tokens", "seconds")
_RESAMPLES = 4000


class Ratio(Strict):
    """How many times less a method needs than the baseline; above 1 is better."""

    value: float
    low: float
    """Lower end of the 95 % bootstrap interval over seeds."""
    high: float
    """Upper end of it."""
    smallest: float
    """Smallest ratio of a pair of arms with one seed."""
    largest: float
    """Largest ratio of such a pair."""
    reached: int
    """Arms of the method that reached the target."""
    baseline_reached: int
    """Arms of the baseline that did; where it is below the number of seeds, the ratio is a lower bound."""


class MethodResult(Strict):
    """A row of the table."""

    method: str
    seeds: int
    final: float
    """Mean final score."""
    final_low: float
    """Lowest final score over the seeds."""
    final_high: float
    """Highest one."""
    to_final: dict[str, Ratio]
    """Ratios to the baseline's final score, in rollouts, tokens and seconds of training."""
    to_90: dict[str, Ratio]
    """Ratios to 90 % of the baseline's gain."""
    frontier: float | None
    """Mean final score on frontier prompts, where it was taken."""
    informative_share: float
    """Mean share of informative groups."""
    curriculum_share: float
    """Share of the seconds of training that is spent in the curriculum."""
    calibration: dict[str, float]
    """Mean calibration figures, those that every run has."""
    oracle_share: float | None
    """Share of the oracle's gain over the baseline that the method reaches in final score."""


def analyse(arms: Sequence[Mapping[str, Any]], baseline: str, score: str = "heldout_sampled") -> list[MethodResult]:
    """One row a method, in the order of their first arms. `arms` are results of `run_arm` on one pool."""
    by_method: dict[str, dict[int, Mapping[str, Any]]] = {}
    for arm in arms:
        by_method.setdefault(arm["arm"]["method"], {})[arm["arm"]["seed"]] = arm
    base = by_method[baseline]
    finals = {m: np.array([curve(a, score)[-1] for a in runs.values()]) for m, runs in by_method.items()}
    start, final = float(np.mean([curve(a, score)[0] for a in base.values()])), float(finals[baseline].mean())
    targets = {"to_final": final, "to_90": start + 0.9 * (final - start)}
    gain = float(finals["oracle"].mean()) - final if "oracle" in finals else 0.0
    rows = []
    for method, runs in by_method.items():
        ratios = {name: {c: _ratio(base, runs, target, c, score) for c in COUNTERS} for name, target in targets.items()}
        kinds = [k for k in ("mae", "pearson", "brier") if all(k in a["calibration"] for a in runs.values())]
        rows.append(
            MethodResult(
                method=method,
                seeds=len(runs),
                final=float(finals[method].mean()),
                final_low=float(finals[method].min()),
                final_high=float(finals[method].max()),
                **ratios,
                frontier=_mean_final(runs.values(), "frontier_sampled"),
                curriculum_share=float(np.mean([a["curriculum_seconds"] / a["seconds"] for a in runs.values()])),
                informative_share=float(np.mean([a["informative_share"] for a in runs.values()])),
                calibration={k: float(np.mean([a["calibration"][k] for a in runs.values()])) for k in kinds},
                oracle_share=(float(finals[method].mean()) - final) / gain if gain > 0 else None,
            )
        )
    return rows


def curve(arm: Mapping[str, Any], score: str) -> Floats:
    """The arm's scores, each the mean of itself and its neighbours (ends stay as they are)."""
    y = np.array([p[score] for p in arm["points"]], dtype=np.float64)
    if len(y) < 3:
        return y
    inner = (y[:-2] + y[1:-1] + y[2:]) / 3
    return np.concatenate([y[:1], inner, y[-1:]])


def cost_to(arm: Mapping[str, Any], target: float, counter: str, score: str) -> tuple[float, bool]:
    """(cost at the first crossing of `target`, interpolated; was it crossed). Not crossed: the whole cost."""
    y = curve(arm, score)
    x = np.array([p[counter] for p in arm["points"]], dtype=np.float64)
    above = np.flatnonzero(y >= target)
    if not len(above):
        return float(x[-1]), False
    i = int(above[0])
    if i == 0:
        return float(x[0]), True
    share = (target - y[i - 1]) / (y[i] - y[i - 1])
    return float(x[i - 1] + share * (x[i] - x[i - 1])), True


def _mean_final(arms: Iterable[Mapping[str, Any]], score: str) -> float | None:
    scored = [float(curve(a, score)[-1]) for a in arms if score in a["points"][-1]]
    return float(np.mean(scored)) if scored else None


def _ratio(
    base: Mapping[int, Mapping[str, Any]],
    runs: Mapping[int, Mapping[str, Any]],
    target: float,
    counter: str,
    score: str,
) -> Ratio:
    ours, reached = zip(*(cost_to(a, target, counter, score) for a in runs.values()), strict=True)
    theirs, base_reached = zip(*(cost_to(a, target, counter, score) for a in base.values()), strict=True)
    pairs = [
        cost_to(base[s], target, counter, score)[0] / max(cost_to(runs[s], target, counter, score)[0], 1e-9)
        for s in runs
        if s in base
    ]
    rng = np.random.default_rng(0)
    ours_array, theirs_array = np.array(ours), np.array(theirs)
    resampled = theirs_array[rng.integers(0, len(theirs), (_RESAMPLES, len(theirs)))].mean(axis=1) / np.maximum(
        ours_array[rng.integers(0, len(ours), (_RESAMPLES, len(ours)))].mean(axis=1), 1e-9
    )
    return Ratio(
        value=float(theirs_array.mean() / max(ours_array.mean(), 1e-9)),
        low=float(np.quantile(resampled, 0.025)),
        high=float(np.quantile(resampled, 0.975)),
        smallest=min(pairs),
        largest=max(pairs),
        reached=sum(reached),
        baseline_reached=sum(base_reached),
    )
