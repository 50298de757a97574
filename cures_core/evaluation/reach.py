"""What it takes to reach a score, and how high a curve lies on the whole: from scores of a few checkpoints."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence


def cost_to(cost: Sequence[float], score: Sequence[float], target: float) -> float | None:
    """Cost at the first crossing of `target`, on straight lines between the points; None where it is never reached.

    `cost` ascends, and both have one value a point.
    """
    for i, (x, y) in enumerate(zip(cost, score, strict=True)):
        if y >= target:
            if i == 0:
                return float(x)
            share = (target - score[i - 1]) / (y - score[i - 1])
            return cost[i - 1] + share * (x - cost[i - 1])
    return None


def mean_until(cost: Sequence[float], score: Sequence[float], spent: float) -> float:
    """Mean of the score over the cost from the first point to `spent`, by the trapezoid rule; the last score holds on.

    Of an empty stretch, the first score.
    """
    area, last = 0.0, max(spent, cost[0])
    points = [*zip(cost, score, strict=True), (math.inf, score[-1])]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        end = min(x1, last)
        if end > x0:
            at_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + at_end) / 2
    return area / (last - cost[0]) if last > cost[0] else float(score[0])
