"""The page that lays runs over each other."""

from __future__ import annotations

import re

from cures_core.report.comparison_page import Comparison, render_comparison
from flows.cli.runs import comparison_lines
from tests.cures_core.report.test_report import checked, score

HOSTILE = "<script>alert(1)</script>"


def comparison() -> Comparison:
    def run(name: str, end: float, against: list[dict[str, object]]) -> dict[str, object]:
        points = [(0, 0, 0.2), (640, 9000, end)]
        return {
            "run": name,
            "status": "completed",
            "scores": [
                {
                    "label": str(x),
                    "rollouts": x,
                    "tokens": t,
                    "seconds": x / 10,
                    "updates": x // 64,
                    "suites": [score("algebra", y), *([score(f"only-{name}", y)] if name == "other" else [])],
                }
                for x, t, y in points
            ],
            "cost": {
                "prior": {"rollouts": 100, "tokens": 400, "seconds": 2.0},
                "train": {"rollouts": 640, "tokens": 9000, "seconds": 64.0, "updates": 10},
            },
            "wasted": {"unused": 200, "unused_tokens": 3000},
            "seconds": 64.0,
            "entropy": 0.25,
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
    both = "40.0 % [35.0 %, 45.0 %]"
    assert f"base {both} 44.0 % {both} - 30.0 % 321 4" in text
    assert re.search(r"\[47\.5 %, 57\.5 %\] \+12\.5 \[\+10\.0, \+15\.0\] 36\.[23] % 321 4", text)
    assert "not paired: k differs" in text
    assert "base, completed, entropy at the end 0.25 nats a token" in text
    assert "training 640 9,000 64.0 10 of these, in no update 200 3,000" in text
    assert "Scored in one run alone: only-other." in text
    assert "training.learning_rate 0.001 0.01" in text


def test_what_it_took_to_reach_the_first_run_counts_all_that_was_paid() -> None:
    most, end = comparison().targets
    assert (most.suite, most.name, end.name) == ("algebra", "90 % of its gain", "its last score")
    base, better, other = end.paid
    assert base is not None
    assert (base.rollouts, base.tokens, base.seconds, base.updates) == (740, 9400, 66.0, 10)
    assert better is not None
    assert better.rollouts == 100 + round(640 * 0.2 / 0.325)
    assert other is None
    text = " ".join(re.sub("<[^>]+>", " ", render_comparison(comparison())).split())
    assert "algebra: avg@k of 40.0 %, its last score run rollouts completion tokens wall time, s updates" in text
    assert (
        "base 740 9,400 66 10 better 494 (1.5x less) 5,938 (1.6x less) 41 (1.6x less) 6 (1.7x less) other never" in text
    )


def test_a_suite_that_a_run_was_not_scored_on_has_no_row_of_it() -> None:
    data = comparison()
    assert data.suites == ["algebra"]
    none = data.runs[1].model_copy(update={"scores": ()})
    shown = comparison().model_copy(update={"runs": (data.runs[0], none, data.runs[2])})
    lines = comparison_lines(shown)
    assert [line.split()[0] for line in lines[lines.index("algebra:") + 1 :][:2]] == ["base", "other"]
    assert "only-other:" not in lines
    assert "not scored" not in "\n".join(lines)


def test_each_curve_has_a_line_for_each_run() -> None:
    html = render_comparison(comparison())
    charts = re.findall(r"<svg.*?</svg>", html, re.S)
    titles = ["training rollouts", "tokens of training", "seconds of training", "updates"]
    assert [re.findall("<title>(.*?)</title>", chart)[0] for chart in charts] == [
        *(f"algebra against {title}" for title in titles),
        "Reward during training",
    ]
    assert re.findall('<p class="title">(.*?)</p>', html) == [
        *(f"algebra against {title}" for title in titles),
        "Reward during training",
    ]
    assert all(chart.count("polyline") == 3 for chart in charts)


def test_runs_without_scores_say_so() -> None:
    html = render_comparison(Comparison.model_validate({"runs": [{"run": "a"}, {"run": "b"}]}))
    checked(html)
    assert "No suite has been scored" in html
    assert "What it took" not in html
    assert "nothing to draw" in html
    assert "None: the runs have the same configuration" in html
