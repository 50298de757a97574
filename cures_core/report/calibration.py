"""Were the predicted pass rates right? Epoch by epoch, with intervals, and apart from lag and caution.

A prediction rests on rollouts of earlier steps. A policy that has improved since does better than was predicted, on
all prompts alike: the lag. And of a prompt of which little is known the group's average is predicted, though most
prompts are either solved or not: the caution, which also shows where a policy stays as it is. Neither is a fault of the
order in which prompts are held to be hard. Both are drawn as one curve, the logistic recalibration of Cox (1958): log
odds of the outcome = intercept + slope x log odds of the prediction. A positive intercept is mostly lag, a slope above
1 caution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cures_core.config.base import Strict
from cures_core.report.charts import Frame, svg

_CONFIDENCE = 0.95
_ITERATIONS = 40
_PRIOR = (25.0, 4.0)
"""Variances of intercept and slope around 0 and 1."""
_MOST_SHOWN = 6


class Bin(Strict):
    """Predictions that are alike, and what became of them."""

    predicted: float
    """Mean prediction."""
    observed: float
    """Share of right rollouts."""
    rollouts: float
    """How many were judged."""

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the observed share (Wilson), as of independent rollouts."""
        from cures_core.evaluation.intervals import wilson  # not at the top: `cures runs list` need not wait for scipy

        low, high = wilson(round(self.observed * self.rollouts), round(self.rollouts), _CONFIDENCE)
        return float(low), float(high)


class Calibrated(Strict):
    """The predictions of one epoch against its outcomes."""

    label: str
    """As in "epoch 2"."""
    bins: tuple[Bin, ...]
    """By the prediction, lowest first."""

    @property
    def rollouts(self) -> float:
        return sum(b.rollouts for b in self.bins)

    @property
    def predicted(self) -> float:
        """Mean prediction, each as often as it had rollouts."""
        return sum(b.predicted * b.rollouts for b in self.bins) / self.rollouts

    @property
    def observed(self) -> float:
        return sum(b.observed * b.rollouts for b in self.bins) / self.rollouts

    @property
    def recalibration(self) -> tuple[float, float]:
        """(intercept, slope) of greatest likelihood; (0, 1) is honest.

        Where few outcomes leave them open, near to that: by a normal prior of deviations 5 and 2, which is worth less
        than a handful of rollouts.
        """
        intercept, slope = 0.0, 1.0
        for _ in range(_ITERATIONS):
            up, along = -intercept / _PRIOR[0], (1 - slope) / _PRIOR[1]
            h_up, h_both, h_along = 1 / _PRIOR[0], 0.0, 1 / _PRIOR[1]
            for b in self.bins:
                x, expected = _log_odds(b.predicted), recalibrated(b.predicted, intercept, slope)
                missing, weight = b.rollouts * (b.observed - expected), b.rollouts * expected * (1 - expected)
                up, along = up + missing, along + missing * x
                h_up, h_both, h_along = h_up + weight, h_both + weight * x, h_along + weight * x * x
            determinant = h_up * h_along - h_both**2
            steps = (h_along * up - h_both * along) / determinant, (h_up * along - h_both * up) / determinant
            size = max(1.0, *map(abs, steps))  # Newton's steps, none longer than 1: the likelihood is concave
            intercept, slope = intercept + steps[0] / size, slope + steps[1] / size
        return intercept, slope

    @property
    def error(self) -> float:
        """Mean distance of predicted and observed, over the rollouts of the bins."""
        return self._distance(0.0, 1.0)

    @property
    def remaining_error(self) -> float:
        """The same, of predictions that are recalibrated."""
        return self._distance(*self.recalibration)

    def _distance(self, intercept: float, slope: float) -> float:
        off = (abs(b.observed - recalibrated(b.predicted, intercept, slope)) * b.rollouts for b in self.bins)
        return sum(off) / self.rollouts


def by_epoch(totals: Sequence[tuple[str, Sequence[Bin]]]) -> tuple[Calibrated, ...]:
    """What each epoch adds to the totals since the start of training, which its record holds. (label, bins) in order.

    An epoch without a verdict is left out.
    """
    found, before = [], dict[int, Bin]()
    for label, total in totals:
        now = {_place(b.predicted): b for b in total}
        added = [_difference(b, before.get(place)) for place, b in sorted(now.items())]
        if bins := tuple(b for b in added if b is not None):
            found.append(Calibrated(label=label, bins=bins))
        before = now
    return tuple(found)


def _place(predicted: float) -> int:
    from cures_core.curriculum.calibration import BINS  # not at the top, for the same reason

    return min(int(predicted * BINS + 1e-9), BINS - 1)


def _difference(now: Bin, before: Bin | None) -> Bin | None:
    """None where there is nothing new."""
    if before is None:
        return now
    rollouts = now.rollouts - before.rollouts
    if rollouts < 0.5:
        return None
    predicted, observed = (
        (getattr(now, name) * now.rollouts - getattr(before, name) * before.rollouts) / rollouts
        for name in ("predicted", "observed")
    )
    return Bin(predicted=_share(predicted), observed=_share(observed), rollouts=rollouts)


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def recalibrated(share: float, intercept: float, slope: float) -> float:
    """A predicted share on the curve of an epoch."""
    return 1 / (1 + math.exp(-(intercept + slope * _log_odds(share))))


def _log_odds(share: float) -> float:
    """Of a share that is kept a thousandth off 0 and 1."""
    inside = min(0.999, max(0.001, share))
    return math.log(inside / (1 - inside))


def plots(epochs: Sequence[Calibrated]) -> list[tuple[str, str]]:
    """Title and picture of each epoch; of more than six, evenly spaced ones with the first and the last."""
    num = len(epochs)
    if num > _MOST_SHOWN:
        epochs = [epochs[round(i * (num - 1) / (_MOST_SHOWN - 1))] for i in range(_MOST_SHOWN)]
    return [(epoch.label.capitalize(), plot(epoch)) for epoch in epochs]


def plot(epoch: Calibrated) -> str:
    """Dots with intervals; the dashed diagonal is an honest prediction, the curve one with lag and caution."""
    frame = Frame((0.0, 1.0), (0.0, 1.0))
    out = frame.axes("predicted pass rate", "observed pass rate")
    ends = f'x1="{frame.px(0):.1f}" y1="{frame.py(0):.1f}" x2="{frame.px(1):.1f}" y2="{frame.py(1):.1f}"'
    out.append(f'<line class="diagonal" {ends}/>')
    fit = epoch.recalibration
    curve = ((x / 50, recalibrated(x / 50, *fit)) for x in range(51))
    points = " ".join(f"{frame.px(x):.1f},{frame.py(y):.1f}" for x, y in curve)
    out.append(f'<polyline class="line s1" points="{points}"/>')
    heaviest = max(b.rollouts for b in epoch.bins)
    for b in epoch.bins:
        x, (low, high) = frame.px(b.predicted), b.interval
        out.append(
            f'<line class="whisker s0" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.py(low):.1f}" y2="{frame.py(high):.1f}"/>'
        )
        radius = 2 + 7 * math.sqrt(b.rollouts / heaviest)
        out.append(f'<circle class="dot s0" cx="{x:.1f}" cy="{frame.py(b.observed):.1f}" r="{radius:.1f}"/>')
    return svg(f"Predicted against observed pass rates, {epoch.label}", out)
