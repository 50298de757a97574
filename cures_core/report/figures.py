"""Figures of the report: a picture with its caption, and the same as a table whose headings have units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cures_core.report.calibration import Calibrated, plots
from cures_core.report.charts import Series, histograms, line_chart, smooth
from cures_core.report.learning import Step, StepChart
from cures_core.report.metrics import heading, plain, written
from cures_core.report.run_data import Allocation, Belief, Scored

_AXES = {
    "rollouts": ("training rollouts", "Scores on the evaluation suites with 95 % intervals."),
    "tokens": ("tokens of training", "The same against the completion tokens of those rollouts."),
    "seconds": ("seconds of training", "The same against the wall time of the training epochs."),
}
"""What learning is drawn against: field of a scored checkpoint, title, caption."""
_MOST_ROWS = 25
_MOST_POINTS = 400


class Figure(NamedTuple):
    """What a page shows of it; without a picture it is left out."""

    title: str
    svg: str
    caption: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def step_figure(chart: StepChart, steps: Sequence[Step]) -> Figure:
    """Of at most 25 steps the table has every one, else evenly spaced ones."""
    names = ["step", "rollouts_total", *chart.shown(steps), *(n for n in chart.also if any(n in row for row in steps))]
    rows = [[written(name, row[name]) if name in row else "-" for name in names] for row in _sample(steps)]
    return Figure(chart.title, chart.draw(steps), chart.caption, [heading(name) for name in names], rows)


def warm_start_figure(rows: Sequence[Mapping[str, float]]) -> Figure:
    """The loss of a supervised warm start."""
    losses = smooth([row["loss"] for row in rows], max(1, len(rows) // 30))
    every = max(1, len(rows) // _MOST_POINTS)
    series = Series("loss", [row["step"] for row in rows][::every], losses[::every])
    svg = line_chart("Loss of the warm start", [series], "optimizer steps", "nats a token") if rows else ""
    caption = (
        "Loss on the completions that the policy was taught before anything was rolled out, running mean. In a table: "
        "warm_start.jsonl beside the policy."
    )
    return Figure("Warm start", svg, caption)


def _sample(steps: Sequence[Step]) -> Sequence[Step]:
    """Evenly spaced rows, first and last among them."""
    if len(steps) <= _MOST_ROWS:
        return steps
    return [steps[round(i * (len(steps) - 1) / (_MOST_ROWS - 1))] for i in range(_MOST_ROWS)]


def score_figures(scores: Sequence[Scored]) -> list[Figure]:
    """The curves of the suites against rollouts, tokens and seconds; the first has the table of all."""
    found = [
        Figure(f"Scores against {title}", _suites_chart(scores, axis, title), caption)
        for axis, (title, caption) in _AXES.items()
    ]
    header = ("after", "suite", "avg@k, %", "from, %", "to, %", "rollouts", "tokens", "time, s", "updates")
    rows = [
        (
            s.label,
            one.suite,
            *(f"{100 * value:.1f}" for value in (one.avg.value, one.avg.low, one.avg.high)),
            f"{s.rollouts:,}",
            f"{s.tokens:,}",
            f"{s.seconds:,.0f}",
            f"{s.updates:,}",
        )
        for s in scores
        for one in s.suites
    ]
    return [found[0]._replace(header=header, rows=rows), *found[1:]]


def _suites_chart(scores: Sequence[Scored], axis: str, title: str) -> str:
    x = [float(getattr(scored, axis)) for scored in scores]
    if len(set(x)) < 2:
        return ""
    series = []
    for i, suite in enumerate(scores[0].suites):
        estimates = [scored.suites[i].avg for scored in scores]
        low, high = [e.low for e in estimates], [e.high for e in estimates]
        series.append(Series(suite.suite, x, [e.value for e in estimates], low, high))
    return line_chart(f"Suite scores against {title}", series, title, "avg@k", (0.0, 1.0))


def belief_figure(beliefs: Sequence[Belief]) -> Figure:
    """The prior and the last posterior over each other; the table has all of them."""
    shown = [belief for i, belief in enumerate(beliefs) if i in (0, len(beliefs) - 1)]
    svg = histograms(
        "Prompts by expected pass rate, before and after",
        [p.label for p in shown],
        [p.histogram for p in shown],
        "expected pass rate",
        "prompts",
    )
    bins = len(beliefs[0].histogram) if beliefs else 0
    rows = [[_span(i, bins), *(f"{p.histogram[i]:,}" for p in beliefs)] for i in range(bins)]
    header = ["expected pass rate, %", *(f"{p.label}, prompts" for p in beliefs)]
    caption = "Filled bars are the prior, outlined bars the last posterior."
    return Figure("Prompts by expected pass rate", svg, caption, header, rows)


def allocation_figure(shares: Allocation | None, asked: Mapping[str, object]) -> Figure:
    """Where rollouts went. `asked`: the curriculum's part of the configuration, which says how they were to go."""
    if shares is None:
        return Figure("", "", "")
    svg = histograms(
        "Where rollouts went",
        ["remembered rollouts", "prompts"],
        [shares.rollouts, shares.prompts],
        "expected pass rate at the end",
        "share",
    )
    pairs = enumerate(zip(shares.rollouts, shares.prompts, strict=True))
    rows = [(_span(i, len(shares.prompts)), f"{100 * r:.1f}", f"{100 * p:.1f}") for i, (r, p) in pairs]
    header = ("expected pass rate, %", "rollouts, %", "prompts, %")
    caption = "Filled bars are the remembered rollouts (old ones fade), outlined bars the prompts. " + _purpose(asked)
    return Figure("Where rollouts went", svg, caption, header, rows)


def _purpose(asked: Mapping[str, object]) -> str:
    """Where rollouts should be, by the way in which they were given to prompts."""
    allocation = asked.get("allocation")
    if isinstance(allocation, dict) and allocation.get("type") == "screen":
        return (
            "This run screens: every drawn prompt gets one rollout, and only those that fail it, and are not taken for "
            f"dead, get up to {allocation.get('max_rollouts', 'a few')} in all. So the bar of the prompts that are "
            "solved is the price of finding the others, one rollout each; what a prompt costs beyond that lies where "
            "the pass rate is neither 0 nor 1."
        )
    return "Rollouts belong where the pass rate is neither 0 nor 1."


def calibration_figures(epochs: Sequence[Calibrated]) -> list[Figure]:
    """A picture an epoch; the table of all of them is `calibration_rows`."""
    return [Figure(title, svg, "") for title, svg in plots(epochs)]


CALIBRATION_HEADER = (
    "epoch",
    "rollouts",
    "predicted, %",
    "observed, %",
    "intercept",
    "slope",
    "off diagonal, points",
    "off curve, points",
)


def calibration_rows(epochs: Sequence[Calibrated]) -> list[list[str]]:
    """One row an epoch."""
    return [
        [
            e.label,
            plain(round(e.rollouts)),
            f"{100 * e.predicted:.1f}",
            f"{100 * e.observed:.1f}",
            *(f"{value:.2f}" for value in e.recalibration),
            f"{100 * e.error:.1f}",
            f"{100 * e.remaining_error:.1f}",
        ]
        for e in epochs
    ]


def bin_rows(epochs: Sequence[Calibrated]) -> list[list[str]]:
    """One row a bin of an epoch: prediction, outcome with its interval, rollouts."""
    return [
        [
            e.label,
            f"{100 * b.predicted:.1f}",
            f"{100 * b.observed:.1f} [{100 * b.interval[0]:.1f}, {100 * b.interval[1]:.1f}]",
            plain(round(b.rollouts)),
        ]
        for e in epochs
        for b in e.bins
    ]


def _span(i: int, bins: int) -> str:
    return f"{100 * i / bins:g} to {100 * (i + 1) / bins:g}"
