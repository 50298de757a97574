"""From report data to HTML: figures are drawn, texts made safe, and the template filled in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from cures_core.evaluation.scores import Estimate, SuiteScore
from cures_core.printable import printable
from cures_core.report.accounts import HEADER, account_rows
from cures_core.report.figures import (
    CALIBRATION_HEADER,
    allocation_figure,
    belief_figure,
    bin_rows,
    calibration_figures,
    calibration_rows,
    score_figures,
    step_figure,
    warm_start_figure,
)
from cures_core.report.learning import CURRICULUM, REWARD, UPDATES, WEIGHTED_REWARD
from cures_core.report.lineage import lineage_graph
from cures_core.report.live import curves_of, scripts, style
from cures_core.report.metrics import plain
from cures_core.report.run_data import ReportData
from cures_core.report.stories import places, render_stories

if TYPE_CHECKING:
    from jinja2 import Environment

_MOST_CHARACTERS = 2000


def render(data: ReportData) -> str:
    """The page: one file without scripts.

    Every text in `data` is escaped; long ones are cut, invisible ones shown as code points.
    """
    return _render(data, None)


def render_live(data: ReportData, refresh_s: int | None = None) -> str:
    """The page as it is served: with curves of all metrics that answer to the mouse. With `refresh_s` a script takes
    what the server has every so many seconds and keeps the place, the zoom, and the parts that a reader has opened."""
    return _render(
        data, {"refresh_s": refresh_s, "curves": curves_of(data.steps), "scripts": scripts(), "style": style()}
    )


def _render(data: ReportData, live: Mapping[str, object] | None) -> str:
    folder = files("cures_core.report")
    weighted = any("correct_share" in row for row in data.steps)
    return (
        make_environment()
        .get_template("page.html")
        .render(
            d=data,
            live=live,
            style=folder.joinpath("style.css").read_text(encoding="utf-8"),
            headline=_headline(data),
            asked=asked(data.config),
            warm_start=warm_start_figure(data.warm_start),
            reward=step_figure(WEIGHTED_REWARD if weighted else REWARD, data.steps),
            updates=[step_figure(chart, data.steps) for chart in UPDATES],
            curriculum=[step_figure(chart, data.steps) for chart in CURRICULUM],
            scores=score_figures(data.scores),
            belief=belief_figure(data.posteriors),
            allocation=allocation_figure(data.named.allocation, data.config.get("curriculum", {})),
            calibration=calibration_figures(data.calibration),
            calibration_table=(CALIBRATION_HEADER, calibration_rows(data.calibration)),
            bins_table=(("epoch", "predicted, %", "observed, %", "rollouts"), bin_rows(data.calibration)),
            account=(HEADER, account_rows(data.cost, data.wasted)),
            lineage=_lineage(data),
            first=data.scores[0] if data.scores else None,
            last=data.scores[-1] if data.scores else None,
            stories=places(data.stories),
            told=render_stories(data.run, data.stories, make_environment()),
            config=json.dumps(data.config, indent=2, ensure_ascii=False),
        )
    )


def make_environment() -> Environment:
    """Jinja with the filters of our pages; everything is escaped unless a template says otherwise."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cures_core.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "safe_text": safe_text,
        "share": _share,
        "estimate": _estimate,
        "signed": _signed,
        "plain": plain,
        "gain": lambda gain: f"{_signed(gain.value)} [{_signed(gain.low)}, {_signed(gain.high)}]",
        "clock": _clock,
        "when": _when,
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
    match prior["type"]:
        case "sample":
            first = f"{prior['budget']:,} rollouts first"
        case "full":
            first = f"{prior['rollouts_per_prompt']:,} rollouts of each prompt first"
        case _:
            first = "no rollouts first"
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


def _lineage(data: ReportData) -> str:
    names = {f"{stage.name}/{stage.key}": f"{stage.name} {stage.label}".strip() for stage in data.stages}
    return lineage_graph(names, data.lineage)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _when(stamp: str) -> str:
    """Day and minute of a UTC time in ISO 8601."""
    return f"{stamp[:10]} {stamp[11:16]} UTC" if len(stamp) > 16 else stamp
