"""Table and picture of some arms on one pool, from their results alone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

from benchmarks.curriculum.analysis import BEST, MethodResult, Ratio, analyse, best_of, curve
from benchmarks.curriculum.kept import Result
from benchmarks.curriculum.methods import BASELINES
from benchmarks.curriculum.worlds import world_of
from cures_core.errors import ConfigError
from cures_core.report.charts import Series, line_chart

_ACCOUNTS = {
    "rollouts": "rollouts",
    "tokens": "tokens",
    "seconds": "seconds",
    "processor_seconds": "processor seconds",
    "updates": "updates",
}


def require_baseline(baseline: str, methods: Sequence[str]) -> None:
    """Raises `ConfigError` where none of the methods could be what ratios are to."""
    if baseline not in methods and not (baseline == BEST and set(methods) & set(BASELINES)):
        wanted = f"one of {', '.join(BASELINES)}" if baseline == BEST else baseline
        raise ConfigError(
            f"--baseline {baseline}: put {wanted} among --methods (kept arms are not run again), or name one of "
            f"{', '.join(methods)}"
        )


def compared(arms: Sequence[Result], baseline: str) -> dict[str, Any]:
    """What a table needs, as JSON values. `baseline`: a method, or `best`: the best of the tuned baselines."""
    first = arms[0]["arm"]
    score = world_of(first["world"]).score
    if baseline == BEST:
        baseline = best_of(arms, BASELINES, score)
    rows = analyse(arms, baseline, score)
    return {
        "world": first["world"],
        "pool": first["pool"],
        "budget": first["budget"],
        "score": score,
        "baseline": baseline,
        "bases": len({a["arm"].get("base", 0) for a in arms}),
        "seeds": len({a["arm"]["seed"] for a in arms}),
        "rows": [row.model_dump() for row in rows],
    }


def table(result: dict[str, Any]) -> list[str]:
    """The comparison as Markdown: a row a method, its accounts to two scores, and where it ends."""
    rows = [MethodResult.model_validate(row) for row in result["rows"]]
    accounts = [name for name in _ACCOUNTS if name in rows[0].to_90]
    ends = [name for name in rows[0].ends if all(name in row.ends for row in rows)]
    to_90 = [f"to 90 %: {_ACCOUNTS[name]}" for name in accounts]
    to_final = [f"to its end: {_ACCOUNTS[name]}" for name in accounts]
    titles = [
        "method",
        "arms",
        "final [lowest, highest]",
        "area",
        *ends,
        *to_90,
        *to_final,
        "informative",
        "oracle's gain",
    ]
    lines = [
        f"World `{result['world']}`, pool `{result['pool']}`, {result['budget']:,} rollouts an arm, {result['bases']} "
        f"base policies, {result['seeds']} seeds. Score: `{result['score']}`. Ratios: how many times less than "
        f"`{result['baseline']}` to 90 % of its gain and to its final score, everything paid.",
        "",
        f"| {' | '.join(titles)} |",
        "|" + "---|" * len(titles),
    ]
    for row in rows:
        cells = [
            row.method,
            str(row.seeds),
            f"{row.final:.3f} [{row.final_low:.3f}, {row.final_high:.3f}]",
            f"{row.area:.3f}",
            *(f"{row.ends[name]:.3f}" for name in ends),
            *(_ratio(row.to_90[name], row.seeds) for name in accounts),
            *(_ratio(row.to_final[name], row.seeds) for name in accounts),
            f"{row.informative_share:.2f}",
            "-" if row.oracle_share is None else f"{100 * row.oracle_share:.0f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _ratio(ratio: Ratio, arms: int) -> str:
    """One arm has no interval."""
    interval = f"{ratio.value:.2f}" + (f" [{ratio.low:.2f}, {ratio.high:.2f}]" if arms > 1 else "")
    return interval if ratio.reached == arms else f"<= {interval} ({ratio.reached} of {arms})"


def page(arms: Sequence[Result], score: str) -> str:
    """Mean curves over the arms of every method, as one self-contained page."""
    first = arms[0]["arm"]
    charts = []
    titles = {score: "Held-out prompts", "avg_at_1": "Frontier", "pass_at_8": "Frontier, pass@8", "entropy": "Entropy"}
    for name, title in titles.items():
        if not all(name in a["points"][-1] for a in arms):
            continue
        series = [_series(method, arms, name) for method in dict.fromkeys(a["arm"]["method"] for a in arms)]
        limits = min(min(s.low or s.y) for s in series), max(max(s.high or s.y) for s in series)
        charts.append(f"<h2>{title}</h2>{line_chart(title, series, 'rollouts', name, limits)}")
    style = files("cures_core.report").joinpath("style.css").read_text(encoding="utf-8")
    heading = f"Curriculum benchmark, world {escape(first['world'])}, pool {escape(first['pool'])}"
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{heading}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
        f"<body><main><h1>{heading}</h1><p>Mean over {len(arms)} arms; bands are lowest and highest.</p>"
        f"{''.join(charts)}</main></body></html>"
    )


def _series(method: str, arms: Sequence[Result], score: str) -> Series:
    runs = [a for a in arms if a["arm"]["method"] == method]
    length = min(len(a["points"]) for a in runs)
    curves = [curve(a, score)[:length] for a in runs]
    x = [p["rollouts"] for p in runs[0]["points"][:length]]
    mean = [sum(values) / len(values) for values in zip(*curves, strict=True)]
    low = [min(values) for values in zip(*curves, strict=True)]
    high = [max(values) for values in zip(*curves, strict=True)]
    return Series(method, x, mean, low, high)
