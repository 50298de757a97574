"""What a comparison of runs shows, and its page: one self-contained HTML file as a run's report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from importlib.resources import files

from pydantic import Field

from cures_core.config.base import Strict
from cures_core.evaluation.reach import cost_to, mean_until
from cures_core.evaluation.scores import Gain, SuiteScore
from cures_core.report.accounts import HEADER, account_rows
from cures_core.report.charts import Series, line_chart, smooth
from cures_core.report.page import make_environment
from cures_core.report.run_data import Scored, Spent, Wasted

_PAID = ("rollouts", "tokens", "seconds", "updates")
_MOST = 0.9
_AXES: dict[str, Callable[[Scored], float]] = {
    "training rollouts": lambda scored: float(scored.rollouts),
    "tokens of training": lambda scored: float(scored.tokens),
    "seconds of training": lambda scored: scored.seconds,
    "updates": lambda scored: float(scored.updates),
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
    """warm_start where there was one, prior, train and eval."""
    wasted: Wasted = Wasted()
    """Of `train`."""
    seconds: float = 0.0
    """Wall time of training."""
    entropy: float | None = None
    """Mean over the last tenth of the updates, in nats a token; None where no step tells."""
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

    def curve(self, suite: str) -> list[tuple[Spent, float]]:
        """(all that was paid by then but evaluations, avg@k) of every checkpoint that was scored on a suite."""
        prior = self.cost.get("prior", Spent(rollouts=0, tokens=0))
        return [
            (
                Spent(
                    rollouts=prior.rollouts + scored.rollouts,
                    tokens=prior.tokens + scored.tokens,
                    seconds=prior.seconds + scored.seconds,
                    updates=scored.updates,
                ),
                score.avg.value,
            )
            for scored in self.scores
            for score in scored.suites
            if score.suite == suite
        ]

    def cost_to(self, suite: str, target: float) -> Spent | None:
        """What the run had paid when it first reached a score, between checkpoints on straight lines; None if never."""
        curve = self.curve(suite)
        scores = [score for _, score in curve]
        found = [cost_to([float(getattr(paid, name)) for paid, _ in curve], scores, target) for name in _PAID]
        if any(value is None for value in found):
            return None
        rollouts, tokens, seconds, updates = (value or 0.0 for value in found)
        return Spent(rollouts=round(rollouts), tokens=round(tokens), seconds=seconds, updates=round(updates))


class Target(Strict):
    """A score of the first run, and what each run had paid when it got there."""

    suite: str
    """Name of the suite."""
    name: str
    """As in "the end of RUN" and "90 % of its gain"."""
    score: float
    """avg@k, 0..1."""
    paid: tuple[Spent | None, ...]
    """By run, prior and training; None where it never got there."""


class Comparison(Strict):
    """Input of `render_comparison`."""

    runs: tuple[ComparedRun, ...]
    """The first one is what the others are compared with."""
    settings: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Configuration keys whose values differ, and what else made the runs unlike: one value (JSON, or words) for each
    run."""

    @property
    def suites(self) -> list[str]:
        """Names of the suites that at least two runs were last scored on, in the order of their first appearance."""
        return [name for name, num in self._scored().items() if num > 1]

    @property
    def alone(self) -> list[str]:
        """Names of those that only one was."""
        return [name for name, num in self._scored().items() if num == 1]

    def _scored(self) -> dict[str, int]:
        return dict(Counter(s.suite for run in self.runs for s in (run.scores[-1].suites if run.scores else ())))

    @property
    def targets(self) -> list[Target]:
        """The first run's last score and 90 % of its gain, on each suite on which it gained."""
        found = []
        for suite in self.suites:
            scores = [score for _, score in self.runs[0].curve(suite)]
            if len(scores) < 2 or scores[-1] <= scores[0]:
                continue
            most = scores[0] + _MOST * (scores[-1] - scores[0])
            for name, score in ((f"{100 * _MOST:.0f} % of its gain", most), ("its last score", scores[-1])):
                paid = tuple(run.cost_to(suite, score) for run in self.runs)
                found.append(Target(suite=suite, name=name, score=score, paid=paid))
        return found

    def mean_score(self, run: ComparedRun, suite: str) -> float | None:
        """Mean avg@k over the rollouts that all runs have paid, prior included; None where there is no curve."""
        curves = [one.curve(suite) for one in self.runs]
        own = run.curve(suite)
        if len(own) < 2:
            return None
        spent = min(curve[-1][0].rollouts for curve in curves if len(curve) > 1)
        return mean_until([float(paid.rollouts) for paid, _ in own], [score for _, score in own], float(spent))


def render_comparison(data: Comparison) -> str:
    """The page; every text in `data` is escaped."""
    style = files("cures_core.report").joinpath("style.css").read_text(encoding="utf-8")
    template = make_environment().get_template("comparison.html")
    return template.render(
        d=data,
        style=style,
        charts=_charts(data),
        account_header=HEADER,
        accounts=[(run.run, account_rows(run.cost, run.wasted)) for run in data.runs],
        reached=[(target, reached_rows(data, target)) for target in data.targets],
    )


def reached_rows(data: Comparison, target: Target) -> list[Sequence[str]]:
    """One row a run: what it had paid, each with how many times less than the first run that is."""
    base = target.paid[0]
    rows: list[Sequence[str]] = []
    for run, paid in zip(data.runs, target.paid, strict=True):
        if paid is None or base is None:
            rows.append((run.run, "never", "", "", ""))
            continue
        figures = [float(getattr(paid, name)) for name in _PAID]
        theirs = [float(getattr(base, name)) for name in _PAID]
        rows.append((run.run, *(_against_base(x, y) for x, y in zip(figures, theirs, strict=True))))
    return rows


def _against_base(value: float, base: float) -> str:
    shown = f"{value:,.0f}"
    return shown if value == base or not value or not base else f"{shown} ({base / value:.2g}x less)"


def _charts(data: Comparison) -> list[tuple[str, str]]:
    """Title and picture of those that there is something to draw in."""
    charts = [(f"{suite} against {axis}", _curves(data, suite, axis)) for suite in data.suites for axis in _AXES]
    rewards = [
        Series(
            run.run, [x for x, _ in run.rewards], smooth([y for _, y in run.rewards], max(1, len(run.rewards) // 30))
        )
        for run in data.runs
    ]
    title = "Reward during training"
    charts.append((title, line_chart(title, rewards, "training rollouts", "share correct", (0.0, 1.0))))
    return [(title, chart) for title, chart in charts if chart]


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
