"""The page that lays runs over each other."""

from __future__ import annotations

import re

from cures_core.report.comparison_page import Comparison, render_comparison
from tests.cures_core.report.test_report import checked, score

HOSTILE = "<script>alert(1)</script>"


def comparison() -> Comparison:
    def run(name: str, end: float, against: list[dict[str, object]]) -> dict[str, object]:
        points = [(0, 0, 0.2), (640, 9000, end)]
        return {
            "run": name,
            "status": "completed",
            "scores": [
                {"label": str(x), "rollouts": x, "tokens": t, "seconds": x / 10, "suites": [score("algebra", y)]}
                for x, t, y in points
            ],
            "cost": {"train": {"rollouts": 640, "tokens": 9000}},
            "seconds": 64.0,
            "rewards": [(64.0 * i, i / 10) for i in range(1, 11)],
            "against": against,
        }

    gain = {"value": 0.125, "low": 0.1, "high": 0.15, "p_value": 0.01}
    return Comparison.model_validate(
        {
            "runs": [
                run("base", 0.4, []),
                run("better", 0.525, [{"suite": "algebra", "gain": gain}]),
                run("other", 0.3, [{"suite": "algebra", "why_not": f"k differs {HOSTILE}"}]),
            ],
            "settings": {"training.learning_rate": ["0.001", "0.01", HOSTILE]},
        }
    )


def test_scores_differences_and_reasons_are_on_the_page() -> None:
    html = render_comparison(comparison())
    page = checked(html)
    assert page.addresses == []
    assert "<script>" not in html
    text = " ".join(re.sub("<[^>]+>", " ", html).split())
    assert "base 40.0 % [35.0 %, 45.0 %] 40.0 % [35.0 %, 45.0 %] - 321 4" in text
    assert "better 52.5 % [47.5 %, 57.5 %] 52.5 % [47.5 %, 57.5 %] +12.5 [+10.0, +15.0] 321 4" in text
    assert "not paired: k differs" in text
    assert "640 - 9,000" in text
    assert "training.learning_rate 0.001 0.01" in text


def test_each_curve_has_a_line_for_each_run() -> None:
    html = render_comparison(comparison())
    charts = re.findall(r"<svg.*?</svg>", html, re.S)
    titles = ["training rollouts", "tokens of training", "seconds of training"]
    assert [re.findall("<title>(.*?)</title>", chart)[0] for chart in charts] == [
        *(f"algebra against {title}" for title in titles),
        "Reward during training",
    ]
    assert all(chart.count("polyline") == 3 for chart in charts)


def test_runs_without_scores_say_so() -> None:
    html = render_comparison(Comparison.model_validate({"runs": [{"run": "a"}, {"run": "b"}]}))
    checked(html)
    assert "No suite has been scored" in html
    assert "nothing to draw" in html
    assert "None: the runs have the same configuration" in html
