"""From report data to HTML: figures are drawn, texts made safe, and the template filled in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from cures_core.evaluation.scores import Estimate, SuiteScore
from cures_core.printable import printable
from cures_core.report.charts import Series, histograms, line_chart, reliability_plot, smooth
from cures_core.report.lineage import lineage_graph
from cures_core.report.run_data import ReportData
from cures_core.report.stories import places, render_stories

if TYPE_CHECKING:
    from jinja2 import Environment

_MOST_CHARACTERS = 2000
_AXES = {"rollouts": "training rollouts", "tokens": "tokens of training", "seconds": "seconds of training"}
"""What learning is drawn against: field of a scored checkpoint, title."""
_MOST_STEPS_IN_A_TABLE = 25


def render(data: ReportData, refresh_s: int | None = None) -> str:
    """The page; with `refresh_s` a script takes what the server has every so many seconds and keeps the place, and the
    parts that a reader has opened.

    Every text in `data` is escaped; long ones are cut, invisible ones shown as code points.
    """
    folder = files("cures_core.report")
    return (
        make_environment()
        .from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
        .render(
            d=data,
            refresh_s=refresh_s,
            style=folder.joinpath("style.css").read_text(encoding="utf-8"),
            headline=_headline(data),
            asked=asked(data.config),
            charts=_charts(data),
            sampled_steps=_sample(data.steps, _MOST_STEPS_IN_A_TABLE),
            first=data.scores[0] if data.scores else None,
            last=data.scores[-1] if data.scores else None,
            reliability_rows=[(b.predicted, b.observed, b.rollouts) for b in data.reliability],
            curve_rows=_curve_rows(data),
            allocation_rows=_allocation_rows(data),
            stories=places(data.stories),
            told=render_stories(data.run, data.stories, make_environment()),
            config=json.dumps(data.config, indent=2, ensure_ascii=False),
        )
    )


def make_environment() -> Environment:
    """Jinja with the filters of our pages; everything is escaped unless a template says otherwise."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "safe_text": safe_text,
        "share": _share,
        "estimate": _estimate,
        "figure": _figure,
        "signed": _signed,
        "gain": lambda gain: f"{_signed(gain.value)} [{_signed(gain.low)}, {_signed(gain.high)}]",
        "clock": _clock,
    }
    return environment


def safe_text(text: str) -> str:
    """Cut to 2,000 characters; control, format and surrogate characters are written as <U+XXXX>."""
    shown = printable(text[:_MOST_CHARACTERS])
    return shown + (f" ... ({len(text):,} characters)" if len(text) > _MOST_CHARACTERS else "")


def _estimate(value: Estimate | float) -> str:
    """A share with its interval, where it has one."""
    if isinstance(value, Estimate):
        return f"{_share(value.value)} [{_share(value.low)}, {_share(value.high)}]"
    return _share(value)


def asked(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a run was to do, from its configuration: (term, words). Empty where there is none."""
    if not config:
        return []
    policy, training, curriculum, prior = (config[name] for name in ("policy", "training", "curriculum", "prior"))
    lora = training.get("lora")
    suites = [
        f"{s['name']} ({s['samples']} samples of each item{', and a greedy one' if s['greedy'] else ''})"
        for s in config["evaluation"]["suites"]
    ]
    kind = (
        f"pretrained model {policy['path']}" if policy["type"] == "pretrained" else "small model made by a warm start"
    )
    weights = f"adapters of rank {lora['rank']}" if lora else "all weights"
    steps = f"{config['epochs']} epochs of {config['steps_per_epoch']} steps"
    step = f"{curriculum['rollouts_per_step']:,} rollouts of {curriculum['prompts_per_step']:,} prompts in each"
    first = f"{prior['budget']:,} rollouts first" if prior["type"] == "sample" else "no rollouts first"
    return [
        ("Policy", f"{kind}; {weights} are trained"),
        ("Prompts", f"{config['data']['path']}, answers judged by the verifier {config['reward']['type']}"),
        ("Training", f"{steps}, {step}; prompts chosen by {curriculum['type']} ({first}); seed {config['seed']}"),
        ("Evaluation", "; ".join(suites) or "none"),
        (
            "Promotion",
            "not asked for" if config["promotion"] is None else f"as {config['promotion']['model']}, if better",
        ),
    ]


def _headline(data: ReportData) -> str:
    """The outcome in one sentence."""
    if not data.gains:
        return "This run has not been scored before and after yet."
    suite, gain = max(data.gains.items(), key=lambda item: item[1].value)
    before, after = (_value(scored.suites, suite) for scored in (data.scores[0], data.scores[-1]))
    change = f"from {_share(before)} to {_share(after)} of the completions on {suite} correct"
    interval = f"gain {_signed(gain.value)} points, 95 % interval {_signed(gain.low)} to {_signed(gain.high)}"
    others = [(name, one) for name, one in data.gains.items() if name != suite and one.high < 0]
    losses = "".join(f" On {name} it got worse ({_signed(one.value)} points)." for name, one in others)
    if gain.low > 0:
        return f"The policy got better: {change} ({interval}).{losses}"
    if gain.high < 0:
        return f"The policy got worse: {change} ({interval}).{losses}"
    return f"No clear change: {change} ({interval}).{losses}"


def _value(suites: Sequence[SuiteScore], name: str) -> float:
    return next((float(s.avg.value) for s in suites if s.suite == name), 0.0)


def _charts(data: ReportData) -> dict[str, str]:
    steps = data.steps
    window = max(1, len(steps) // 30)

    def over_rollouts(
        title: str, named: dict[str, str], y_title: str, y_range: tuple[float, float] | None = None
    ) -> str:
        """A figure that a step does not have (a mean over nothing) is no point of its line."""
        series = []
        for name, key in named.items():
            rows = [row for row in steps if key in row]
            x = [float(row.get("rollouts_total", 0.0)) for row in rows]
            series.append(Series(name, x, smooth([float(row[key]) for row in rows], window)))
        return line_chart(title, [one for one in series if one.x], "training rollouts", y_title, y_range)

    shown = [p for i, p in enumerate(data.posteriors) if i in (0, len(data.posteriors) - 1)]
    return {
        "reward": over_rollouts(
            "Reward during training", {"correct": "correct_share", "reward": "reward_mean"}, "reward"
        )
        if _has(steps, "correct_share")
        else over_rollouts("Reward during training", {"reward": "reward_mean"}, "share correct", (0.0, 1.0)),
        "warm_start": _warm_start_chart(data),
        "thinking": over_rollouts(
            "Thinking and answers",
            {"thinking": "thinking_tokens_mean", "answer": "answer_tokens_mean"},
            "tokens of a completion",
        )
        if _has(steps, "thinking_tokens_mean")
        else "",
        **{f"suites_{axis}": _suites_chart(data, axis, title) for axis, title in _AXES.items()},
        "allocation": _allocation_chart(data),
        "lineage": _lineage(data),
        "posterior": histograms(
            "Prompts by expected pass rate, before and after",
            [p.label for p in shown],
            [p.histogram for p in shown],
            "expected pass rate",
            "prompts",
        ),
        "informative": over_rollouts(
            "Groups by outcome",
            {"informative": "informative_share", "all right": "all_right_share", "all wrong": "all_wrong_share"},
            "share of groups",
            (0.0, 1.0),
        ),
        "ess": over_rollouts(
            "Effective sample size of the prompt distribution", {"prompts": "effective_sample_size"}, "prompts"
        ),
        "calibration": over_rollouts(
            "Error of the predicted pass rates", {"mean absolute error": "calibration_mae"}, "error", (0.0, 0.6)
        ),
        "reliability": reliability_plot(
            "Predicted against observed pass rates", [(b.predicted, b.observed, b.rollouts) for b in data.reliability]
        ),
    }


def _warm_start_chart(data: ReportData) -> str:
    rows = data.warm_start
    losses = smooth([row["loss"] for row in rows], max(1, len(rows) // 30))
    every = max(1, len(rows) // 400)
    series = Series("loss", [row["step"] for row in rows][::every], losses[::every])
    return line_chart("Loss of the warm start", [series], "optimizer steps", "nats a token") if rows else ""


def _suites_chart(data: ReportData, axis: str, title: str) -> str:
    x = [float(getattr(scored, axis)) for scored in data.scores]
    if len(set(x)) < 2:
        return ""
    series = []
    for i, suite in enumerate(data.scores[0].suites):
        estimates = [scored.suites[i].avg for scored in data.scores]
        low, high = [e.low for e in estimates], [e.high for e in estimates]
        series.append(Series(suite.suite, x, [e.value for e in estimates], low, high))
    return line_chart(f"Suite scores against {title}", series, title, "avg@k", (0.0, 1.0))


def _allocation_chart(data: ReportData) -> str:
    shares = data.named.allocation
    if shares is None:
        return ""
    return histograms(
        "Where rollouts went",
        ["remembered rollouts", "prompts"],
        [shares.rollouts, shares.prompts],
        "expected pass rate at the end",
        "share",
    )


def _curve_rows(data: ReportData) -> list[tuple[str | float, ...]]:
    return [
        (s.label, one.suite, one.avg.value, one.avg.low, one.avg.high, s.rollouts, s.tokens, round(s.seconds, 1))
        for s in data.scores
        for one in s.suites
    ]


def _allocation_rows(data: ReportData) -> list[tuple[float, ...]]:
    shares = data.named.allocation
    if shares is None:
        return []
    pairs = zip(shares.rollouts, shares.prompts, strict=True)
    return [(i / len(shares.prompts), rollouts, prompts) for i, (rollouts, prompts) in enumerate(pairs)]


def _lineage(data: ReportData) -> str:
    names = {f"{stage.name}/{stage.key}": f"{stage.name} {stage.label}".strip() for stage in data.stages}
    return lineage_graph(names, data.lineage)


def _has(steps: Sequence[Mapping[str, float | str]], key: str) -> bool:
    return any(key in row for row in steps)


def _sample(steps: Sequence[dict[str, float | str]], most: int) -> list[dict[str, float | str]]:
    """Evenly spaced rows, first and last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"


def _figure(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.3f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
