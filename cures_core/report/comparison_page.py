"""What a comparison of runs shows, and its page: one self-contained HTML file as a run's report."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

from pydantic import Field

from cures_core.config.base import Strict
from cures_core.evaluation.scores import Gain, SuiteScore
from cures_core.report.charts import Series, line_chart, smooth
from cures_core.report.page import make_environment
from cures_core.report.run_data import Scored, Spent

_AXES: dict[str, Callable[[Scored], float]] = {
    "training rollouts": lambda scored: float(scored.rollouts),
    "tokens of training": lambda scored: float(scored.tokens),
    "seconds of training": lambda scored: scored.seconds,
}


class Against(Strict):
    """A run's last scores on a suite against those of the first run."""

    suite: str
    """Name of the suite."""
    gain: Gain | None = None
    """Paired difference over the same items, the first run's score taken off; None where they do not compare."""
    why_not: str = ""
    """What differs, where they do not compare."""
    unlike: tuple[str, ...] = ()
    """What made the two differently, where they compare: versions and machine, in words."""


class ComparedRun(Strict):
    """One of the runs."""

    run: str
    """Run name."""
    status: str = ""
    """As in `cures runs list`."""
    scores: tuple[Scored, ...] = ()
    """Oldest first."""
    cost: dict[str, Spent] = Field(default_factory=dict)
    """prior, train and eval."""
    seconds: float = 0.0
    """Wall time of training."""
    rewards: tuple[tuple[float, float], ...] = ()
    """(training rollouts, mean reward) of every step."""
    against: tuple[Against, ...] = ()
    """Paired with the first run; empty for the first run itself."""

    def last(self, suite: str) -> SuiteScore | None:
        """The latest score on a suite; None where it was not scored."""
        latest = self.scores[-1].suites if self.scores else ()
        return next((score for score in latest if score.suite == suite), None)

    def pair(self, suite: str) -> Against | None:
        """The comparison with the first run on a suite; None where there is none."""
        return next((one for one in self.against if one.suite == suite), None)


class Comparison(Strict):
    """Input of `render_comparison`."""

    runs: tuple[ComparedRun, ...]
    """The first one is what the others are compared with."""
    settings: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Configuration keys whose values differ: one value (JSON) for each run."""

    @property
    def suites(self) -> list[str]:
        """Names of all suites, in the order of their first appearance."""
        names = [score.suite for run in self.runs for scored in run.scores for score in scored.suites]
        return list(dict.fromkeys(names))


def render_comparison(data: Comparison) -> str:
    """The page; every text in `data` is escaped."""
    folder = files("cures_core.report")
    template = make_environment().from_string(folder.joinpath("comparison.html").read_text(encoding="utf-8"))
    return template.render(d=data, style=folder.joinpath("style.css").read_text(encoding="utf-8"), charts=_charts(data))


def _charts(data: Comparison) -> list[str]:
    charts = [_curves(data, suite, axis) for suite in data.suites for axis in _AXES]
    rewards = [
        Series(
            run.run, [x for x, _ in run.rewards], smooth([y for _, y in run.rewards], max(1, len(run.rewards) // 30))
        )
        for run in data.runs
    ]
    charts.append(line_chart("Reward during training", rewards, "training rollouts", "share correct", (0.0, 1.0)))
    return [chart for chart in charts if chart]


def _curves(data: Comparison, suite: str, axis: str) -> str:
    """One line for each run; runs whose scores are all at the same place have nothing to draw."""
    series = []
    for run in data.runs:
        at = [
            (_AXES[axis](scored), score.avg) for scored in run.scores for score in scored.suites if score.suite == suite
        ]
        low, high = [e.low for _, e in at], [e.high for _, e in at]
        series.append(Series(run.run, [x for x, _ in at], [e.value for _, e in at], low, high))
    if all(len(set(one.x)) < 2 for one in series):
        return ""
    return line_chart(f"{suite} against {axis}", series, axis, f"{suite}: avg@k", (0.0, 1.0))
