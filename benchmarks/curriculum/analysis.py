"""From curves to claims: what it costs to reach a score, ratios to a baseline, intervals over base policies and seeds.

A target is a fixed score: the baseline's mean final score, or the start plus 90 % of the baseline's gain. An arm that
never gets there counts with its whole budget, so that a ratio is then a bound and marked as such. Intervals are 95 %
bootstrap intervals: base policies are drawn with replacement, then seeds within each, the same for both methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cures_core.config.base import Strict
from cures_core.errors import ConfigError
from cures_core.evaluation import reach

Floats = npt.NDArray[np.float64]
COUNTERS = ("rollouts", "tokens", "seconds", "processor_seconds", "updates")
"""The accounts. Arms that do not keep one are analysed without it."""
ENDS = ("avg_at_1", "greedy", "pass_at_8", "entropy")
"""Scores whose mean at the end is given, where all arms have them."""
BEST = "best"
_RESAMPLES = 4000

Cell = tuple[int, int]
"""Base policy and seed: arms of two methods with one cell differ in the method alone."""
Arms = Mapping[Cell, Mapping[str, Any]]


class Ratio(Strict):
    """How many times less a method needs than the baseline; above 1 is better."""

    value: float
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of it."""
    smallest: float
    """Smallest ratio of a pair of arms with one base policy and seed."""
    largest: float
    """Largest ratio of such a pair."""
    reached: int
    """Arms of the method that reached the target."""
    baseline_reached: int
    """Arms of the baseline that did; where it is below the number of arms, the ratio is a lower bound."""


class MethodResult(Strict):
    """A row of the table."""

    method: str
    bases: int
    """Base policies."""
    seeds: int
    """Arms: seeds over all base policies."""
    final: float
    """Mean final score."""
    final_low: float
    """Lowest final score over the arms."""
    final_high: float
    """Highest one."""
    area: float
    """Mean score over the rollouts that all arms have spent."""
    ends: dict[str, float]
    """Other mean scores at the end: avg@1, greedy, pass@8, entropy."""
    to_final: dict[str, Ratio]
    """Ratios to the baseline's final score, by account."""
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


def best_of(arms: Sequence[Mapping[str, Any]], methods: Sequence[str], score: str) -> str:
    """The method among `methods` with the highest mean final score: chosen on the arms that it is then compared on,
    which favours the baseline. Raises `ConfigError` where there is no arm of any."""
    finals = {m: [float(curve(a, score)[-1]) for a in arms if a["arm"]["method"] == m] for m in methods}
    means = {m: sum(values) / len(values) for m, values in finals.items() if values}
    if not means:
        raise ConfigError(f"no arm of a baseline: {', '.join(methods)}")
    return max(means, key=lambda m: means[m])


def analyse(arms: Sequence[Mapping[str, Any]], baseline: str, score: str = "heldout_sampled") -> list[MethodResult]:
    """One row a method, in the order of their first arms. `arms` are results of `run_arm` on one pool of one world."""
    by_method: dict[str, dict[Cell, Mapping[str, Any]]] = {}
    for arm in arms:
        by_method.setdefault(arm["arm"]["method"], {})[arm["arm"].get("base", 0), arm["arm"]["seed"]] = arm
    base = by_method[baseline]
    finals = {m: np.array([curve(a, score)[-1] for a in runs.values()]) for m, runs in by_method.items()}
    start, final = float(np.mean([curve(a, score)[0] for a in base.values()])), float(finals[baseline].mean())
    targets = {"to_final": final, "to_90": start + 0.9 * (final - start)}
    gain = float(finals["oracle"].mean()) - final if "oracle" in finals else 0.0
    counters = [c for c in COUNTERS if all(c in a["points"][-1] for a in arms)]
    spent = min(float(a["points"][-1]["rollouts"]) for a in arms)
    rows = []
    for method, runs in by_method.items():
        ratios = {name: {c: _ratio(base, runs, target, c, score) for c in counters} for name, target in targets.items()}
        kinds = [k for k in ("mae", "pearson", "brier") if all(k in a["calibration"] for a in runs.values())]
        ends = [name for name in ENDS if all(name in a["points"][-1] for a in runs.values())]
        rows.append(
            MethodResult(
                method=method,
                bases=len({cell[0] for cell in runs}),
                seeds=len(runs),
                final=float(finals[method].mean()),
                final_low=float(finals[method].min()),
                final_high=float(finals[method].max()),
                area=float(np.mean([area(a, score, spent) for a in runs.values()])),
                ends={name: float(np.mean([a["points"][-1][name] for a in runs.values()])) for name in ends},
                **ratios,
                frontier=_mean_final(runs.values(), "frontier_sampled"),
                curriculum_share=float(np.mean([a["curriculum_seconds"] / a["seconds"] for a in runs.values()])),
                informative_share=float(np.mean([a["informative_share"] for a in runs.values()])),
                calibration={k: float(np.mean([a["calibration"][k] for a in runs.values()])) for k in kinds},
                oracle_share=(float(finals[method].mean()) - final) / gain if gain > 0 else None,
            )
        )
    return rows


def area(arm: Mapping[str, Any], score: str, spent: float) -> float:
    """Mean of the curve over the first `spent` rollouts, by the trapezoid rule."""
    x = np.array([p["rollouts"] for p in arm["points"]], dtype=np.float64)
    y = curve(arm, score)
    inside = np.concatenate([x[x < spent], [spent]])
    return float(np.trapezoid(np.interp(inside, x, y), inside) / max(spent, 1e-9))


def curve(arm: Mapping[str, Any], score: str) -> Floats:
    """The arm's scores, each the mean of itself and its neighbours (ends stay as they are)."""
    y = np.array([p[score] for p in arm["points"]], dtype=np.float64)
    if len(y) < 3:
        return y
    inner = (y[:-2] + y[1:-1] + y[2:]) / 3
    return np.concatenate([y[:1], inner, y[-1:]])


def cost_to(arm: Mapping[str, Any], target: float, counter: str, score: str) -> tuple[float, bool]:
    """(cost at the first crossing of `target`, interpolated; was it crossed). Not crossed: the whole cost."""
    x = [float(p[counter]) for p in arm["points"]]
    found = reach.cost_to(x, curve(arm, score).tolist(), target)
    return (x[-1], False) if found is None else (found, True)


def _mean_final(arms: Iterable[Mapping[str, Any]], score: str) -> float | None:
    scored = [float(curve(a, score)[-1]) for a in arms if score in a["points"][-1]]
    return float(np.mean(scored)) if scored else None


def _ratio(base: Arms, runs: Arms, target: float, counter: str, score: str) -> Ratio:
    """Of the cells that both have."""
    cells = sorted(base.keys() & runs.keys())
    if not cells:
        raise ConfigError("method and baseline have no arm of the same base policy and seed")
    ours, reached = zip(*(cost_to(runs[c], target, counter, score) for c in cells), strict=True)
    theirs, base_reached = zip(*(cost_to(base[c], target, counter, score) for c in cells), strict=True)
    ours_array, theirs_array = np.maximum(np.array(ours), 1e-9), np.array(theirs)
    drawn = _resampled(cells)
    resampled = theirs_array[drawn].mean(axis=1) / ours_array[drawn].mean(axis=1)
    pairs = theirs_array / ours_array
    return Ratio(
        value=float(theirs_array.mean() / ours_array.mean()),
        low=float(np.quantile(resampled, 0.025)),
        high=float(np.quantile(resampled, 0.975)),
        smallest=float(pairs.min()),
        largest=float(pairs.max()),
        reached=sum(reached),
        baseline_reached=sum(base_reached),
    )


def _resampled(cells: Sequence[Cell]) -> npt.NDArray[np.int64]:
    """Numbers of cells, (resamples, as many as there are at most): base policies first, then seeds of each drawn one.

    Where base policies have unequal numbers of seeds, each draws as many as the one with the most.
    """
    rng = np.random.default_rng(0)
    groups = [np.array([i for i, c in enumerate(cells) if c[0] == base]) for base in dict.fromkeys(c[0] for c in cells)]
    most = max(len(group) for group in groups)
    drawn = rng.integers(0, len(groups), (_RESAMPLES, len(groups)))
    rows = np.empty((_RESAMPLES, len(groups), most), dtype=np.int64)
    for number, group in enumerate(groups):
        where = drawn == number
        rows[where] = group[rng.integers(0, len(group), (int(where.sum()), most))]
    return rows.reshape(_RESAMPLES, -1)
