"""What a served page has beside the report: curves of all metrics that answer to the mouse, and a script that keeps it
current."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import TypedDict

from cures_core.report import uplot
from cures_core.report.learning import Step
from cures_core.report.metrics import METRICS, metric_of

MOST_POINTS = 2000
"""Of longer runs every second, third ... step is drawn."""
_NO_CURVES = ("step", "schema")


class Curve(TypedDict):
    """A metric; None in `values` where a step has none."""

    name: str
    title: str
    unit: str
    values: list[float | None]


class Curves(TypedDict):
    """What `live.js` draws."""

    x: list[float]
    """Numbers of steps."""
    metrics: list[Curve]


def curves_of(steps: Sequence[Step]) -> Curves:
    """All metrics that are numbers, known ones first. Shares stay between 0 and 1, as in metrics.jsonl."""
    shown = steps[:: -(-len(steps) // MOST_POINTS) or 1]
    found = {name for row in steps for name, value in row.items() if isinstance(value, int | float)}
    names = [*(name for name in METRICS if name in found), *sorted(found - set(METRICS))]
    metrics = [_curve(name, shown) for name in names if name not in _NO_CURVES]
    return {"x": [float(row.get("step", i)) for i, row in enumerate(shown, 1)], "metrics": metrics}


def _curve(name: str, steps: Sequence[Step]) -> Curve:
    metric = metric_of(name)
    unit = "" if metric.kind == "share" else metric.unit
    values = [value if isinstance(value := row.get(name), int | float) else None for row in steps]
    return {"name": name, "title": metric.title, "unit": unit, "values": values}


def scripts() -> list[str]:
    """In the order in which a page runs them."""
    own = files("cures_core.report")
    return [
        uplot.text_of("uPlot.iife.min.js"),
        *(own.joinpath(name).read_text(encoding="utf-8") for name in ("live.js", "refresh.js")),
    ]


def style() -> str:
    """Of the curves."""
    return uplot.text_of("uPlot.min.css")
