"""The served page: all metrics as curves, from scripts that are in it."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.resources import files

from cures_core.report import ReportData, render, render_live, uplot
from cures_core.report.live import MOST_POINTS, curves_of
from tests.cures_core.report.test_report import checked, full


def test_what_is_kept_of_uplot_is_what_was_published() -> None:
    kept = files("cures_core.report.uplot")
    for name, digest in uplot.DIGESTS.items():
        assert hashlib.sha256(kept.joinpath(name).read_bytes()).hexdigest() == digest
    assert f"(v{uplot.VERSION})" in uplot.text_of("uPlot.iife.min.js")[:200]
    assert "MIT License" in kept.joinpath("LICENSE").read_text(encoding="utf-8")
    assert uplot.VERSION in (uplot.__doc__ or "")


def test_every_number_is_a_curve_and_what_a_step_does_not_have_is_a_gap() -> None:
    steps = [{"step": 1.0, "mine": 2.0, "loss": 0.5, "reason": "complete", "schema": 1.0}, {"step": 2.0, "mine": 3.0}]
    curves = curves_of(steps)
    assert curves["x"] == [1.0, 2.0]
    assert [(one["name"], one["values"]) for one in curves["metrics"]] == [("loss", [0.5, None]), ("mine", [2.0, 3.0])]
    assert curves_of([]) == {"x": [], "metrics": []}


def test_of_a_long_run_evenly_many_steps_are_drawn() -> None:
    curves = curves_of([{"step": float(i), "loss": 0.0} for i in range(1, 2 * MOST_POINTS + 2)])
    assert MOST_POINTS / 2 < len(curves["x"]) <= MOST_POINTS
    assert curves["x"][:3] == [1.0, 4.0, 7.0]


def test_the_page_carries_its_scripts_and_fetches_nothing_else() -> None:
    steps = ({"step": 1.0, "</script><b>": 1.0},)
    html = render_live(full().model_copy(update={"steps": steps}), 5)
    page = checked(html)
    assert page.addresses == []
    assert page.tags.count("script") == 4
    told = re.search(r'<script type="application/json" id="steps">(.*?)</script>', html, re.S)
    assert told is not None
    assert json.loads(told[1])["metrics"][0]["name"] == "</script><b>"
    assert 'data-refresh="5"' in html
    assert "data-refresh=" not in render_live(ReportData(run="r"))
    assert "<script" not in render(full())
