"""Markdown of the docs from what is kept in benchmarks/results: GPU sessions, arms of worlds, behaviour of policies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.curriculum.analysis import BEST, analyse, best_of
from benchmarks.curriculum.behaviour import BANDS, BEHAVIOUR, REFERENCE, factors
from benchmarks.curriculum.kept import RESULTS as WORLDS
from benchmarks.curriculum.kept import comparable, load
from benchmarks.curriculum.methods import BASELINES
from benchmarks.curriculum.report import compared, table
from cures_core.errors import ConfigError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ("docs/engines.md", "docs/scaling.md", "docs/benchmarks.md", "docs/library.md")
NOTHING = "Nothing has been measured yet: `benchmarks/gpu/run.sh MINUTES OUT` on a machine with a GPU.\n"

NOTHING_KEPT = "Nothing to compare is kept yet.\n"

Results = Mapping[str, Any]


def load_results(folder: Path = RESULTS) -> list[Results]:
    """Every session's `results.json` that was put into `folder` under a name of its own, by name."""
    return [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]


def throughput(results: Results) -> str:
    units = [unit for name, unit in results["units"].items() if name.startswith("throughput")]
    cases = [c for unit in units for c in unit["result"].get("cases", {}).values() if "tokens_per_s" in c]
    on_gpu = results["machine"]["device"] != "cpu"
    slow = {case["rows"]: case["tokens_per_s"] for case in cases if case["decoding"] == "eager"}
    cases.sort(key=lambda case: (case["rows"], case["tokens_per_s"]))
    rows = [
        [
            case["rows"],
            f"{case['engine']}, {case['decoding']}{_fallback(case) if on_gpu else ''}",
            f"{case['tokens_per_s']:,.0f}",
            f"{case['tokens_per_s'] / slow[case['rows']]:.1f}x" if case["rows"] in slow else "",
            f"{case['first_call_s']:.1f} s",
            "" if case["memory_mib"] is None else f"{case['memory_mib']:,} MiB",
        ]
        for case in cases
    ]
    return _table(["rows", "engine", "tokens/s", "over eager", "first call", "memory"], rows)


def _fallback(case: Mapping[str, Any]) -> str:
    """What was not as the case says."""
    if case["decoding"] != "static" or case.get("captured", 1):
        return ""
    return " (not captured)" if case["static"] else " (eager after all)"


def step(results: Results) -> str:
    sides = [(arm, results["units"].get(f"step-{arm}", {}).get("result", {})) for arm in ("cures", "trl")]
    rows = [
        [arm, *(f"{side[name]:,.1f}" for name in ("total_s", "generation_s", "training_s", "tokens_per_s", "peak_mib"))]
        for arm, side in sides
        if side.get("done")
    ]
    return _table(["", "seconds", "generation", "training", "tokens/s", "peak, MiB"], rows)


def plans(results: Results) -> str:
    rows = []
    for name, unit in results["units"].items():
        found = unit["result"]
        if name.startswith("plan-") and found.get("done"):
            per_step = [f"{1000 * found[key]:.1f}" for key in ("planned_s_per_rollout", "measured_s_per_rollout")]
            memory = [f"{found[key]:,}" for key in ("planned_mib", "measured_mib")]
            rows.append([name.removeprefix("plan-"), f"{found['parameters']:,}", *memory, *per_step])
    titles = ["policy", "parameters", "MiB planned", "MiB measured", "ms a rollout planned", "ms a rollout measured"]
    return _table(titles, rows)


def arms(results: Results) -> str:
    """Arms whose budget is spent, by pool; the others say nothing about a method yet."""
    found = [u["result"] for name, u in results["units"].items() if name.startswith("arm-")]
    whole = [arm for arm in found if arm.get("done") and arm.get("budget_spent")]
    rows: list[list[Any]] = []
    for pool in dict.fromkeys(arm["arm"]["pool"] for arm in whole):
        those = [arm for arm in whole if arm["arm"]["pool"] == pool]
        if not any(arm["arm"]["method"] in BASELINES for arm in those):
            continue
        baseline = best_of(those, BASELINES, "avg_at_1")
        theirs = {arm["arm"]["seed"] for arm in those if arm["arm"]["method"] == baseline}
        # Unfinished sessions have methods of which no seed is the baseline's too.
        paired = {arm["arm"]["method"] for arm in those if arm["arm"]["seed"] in theirs}
        those = [arm for arm in those if arm["arm"]["method"] in paired]
        for row in analyse(those, baseline, "avg_at_1"):
            ends = [arm["points"][-1] for arm in those if arm["arm"]["method"] == row.method]
            k = next(name for name in ends[0] if name.startswith("pass_at_"))
            ratios = [f"{row.to_90[c].value:.2f}x" for c in ("rollouts", "tokens", "seconds")]
            scores = [f"{sum(end[name] for end in ends) / len(ends):.3f}" for name in ("greedy", k, "entropy")]
            spread = f"{row.final:.3f} [{row.final_low:.3f}, {row.final_high:.3f}]"
            rows.append([pool, row.method, row.seeds, spread, *scores, *ratios, f"{row.informative_share:.2f}"])
    titles = ["pool", "method", "seeds", "avg@1 [lowest, highest]", "greedy", "pass@8", "entropy"]
    return _table(
        [*titles, "over the best baseline (1.00x) to 90 % of its gain: rollouts", "tokens", "seconds", "informative"],
        rows,
    )


def machines(results: Results) -> str:
    """One line: card, driver, versions, and what has run."""
    machine, units = results["machine"], results["units"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    driver = f", driver {machine['driver']}, CUDA {machine['cuda']}" if "driver" in machine else ""
    sources = sorted({unit["source"] for unit in units.values()})
    exams = [
        f"{name.removeprefix('exam-')} {found.get('passed', 0)} passed, {found.get('failed', 0)} failed"
        for name, found in ((name, unit["result"]) for name, unit in units.items())
        if name.startswith("exam-")
    ]
    failed = [name for name, unit in units.items() if not unit["result"].get("done")]
    lines = [f"{machine['device']}{driver}, Python {machine['python']}; {versions}; source {', '.join(sources)}."]
    lines += [f"Exams: {'; '.join(exams)}."] if exams else []
    lines += [f"Not done: {', '.join(failed)}."] if failed else []
    return "\n".join(lines) + "\n"


BLOCKS: dict[str, Callable[[Results], str]] = {
    "throughput": throughput,
    "step": step,
    "plans": plans,
    "arms": arms,
    "machines": machines,
}


def behaviour() -> str:
    """Every measured base policy beside the pretrained model: figures, and in brackets how many times the latter's."""
    kept = {path.stem: json.loads(path.read_bytes()) for path in sorted(BEHAVIOUR.glob("*.json"))}
    if REFERENCE not in kept:
        return ""
    names = [REFERENCE, *(name for name in kept if name != REFERENCE)]
    times = {name: factors(kept[name], kept[REFERENCE]) for name in names}

    def cell(name: str, figure: str) -> str:
        value, factor = kept[name]["summary"].get(figure), times[name].get(figure)
        if value is None:
            return "-"
        return f"{value:.2f}" if factor is None or name == REFERENCE else f"{value:.2f} ({factor:.1f}x)"

    figures = {
        "pass_rate": "pass rate",
        "pass_at_8": "pass@8",
        "solved_share": "problems with every completion right",
        "hopeless_share": "problems with none",
        "tokens": "tokens of a completion",
        "entropy": "entropy of a token, nats",
        "truncated_share": "truncated",
        "forms": "different texts among the right ones",
        **{
            f"ratio_{part}_{band}": f"m+ / m-, {weights}, pass rate {low:g} to {high:g}"
            for part, weights in (("output", "output layer"), ("whole", "all weights"))
            for band, (low, high) in BANDS.items()
        },
    }
    rows = [[title, *(cell(name, figure) for name in names)] for figure, title in figures.items()]
    for band, (low, high) in BANDS.items():
        counts = (str(kept[name].get("bands", {}).get(band, {}).get("output_prompts", 0)) for name in names)
        rows.append([f"prompts behind these, {low:g} to {high:g}", *counts])
    rows.append(["problems x completions", *(f"{kept[n]['prompts']} x {kept[n]['samples']}" for n in names)])
    return _table(["", *names], rows)


def worlds() -> str:
    """A comparison for every world, pool and budget of which arms are kept, with the commands that made them."""
    parts = []
    for path in sorted(WORLDS.glob("*.json")):
        for arms in comparable(load(path.stem).values()):
            if len({arm["arm"]["method"] for arm in arms}) < 2:
                continue  # nothing to compare it with
            parts.append("\n".join([*table(compared(arms, BEST)), "", _made_by(arms, "torch"), ""]))
    return "\n".join(parts)


def _made_by(arms: Sequence[Results], *packages: str) -> str:
    """Commands and commits of arms, and the processor and versions of the first one."""
    commands = dict.fromkeys(f"`{arm['made']['command']}` ({arm['made']['commit']})" for arm in arms)
    made = arms[0]["made"]
    versions = ", ".join(f"{name} {made['versions'][name]}" for name in packages)
    return f"Made by {'; '.join(commands)}; {made['processor']}, {versions}."


def library() -> str:
    """TRL with and without the curriculum, for every pool and budget of which both are kept."""
    from benchmarks.library.comparison import KEPT  # imports TRL, which others need not have
    from benchmarks.library.comparison import table as library_table

    parts = []
    for arms in comparable(load("scratchpad", KEPT).values()):
        if len({arm["arm"]["method"] for arm in arms}) < 2:
            continue
        parts.append("\n".join([*library_table(arms), "", _made_by(arms, "trl", "transformers", "torch"), ""]))
    return "\n".join(parts)


OWN: dict[str, Callable[[], str]] = {"behaviour": behaviour, "worlds": worlds, "library": library}
"""Blocks that are not of a GPU session."""
_BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end of results -->\n)", re.DOTALL)


def block(name: str, every: Sequence[Results]) -> str:
    """The text of a block: one part for each machine that has something to say. Raises `ConfigError`."""
    if name in OWN:
        return OWN[name]() or NOTHING_KEPT
    if name not in BLOCKS:
        raise ConfigError(f"results: {name}: use one of {', '.join([*BLOCKS, *OWN])}")
    parts = [(results["machine"]["device"], text) for results in every if (text := BLOCKS[name](results))]
    if not parts:
        return NOTHING
    if name == "machines":
        return "\n".join(text for _, text in parts)
    return "\n".join(f"{device}:\n\n{text}" for device, text in parts)


def filled(text: str, every: Sequence[Results]) -> str:
    """A page with every block between its two marks written anew."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{block(found[2], every)}\n{found[3]}", text)


def write_docs(pages: Iterable[str] = DOCS) -> list[str]:
    """The pages that have changed."""
    every, changed = load_results(), []
    for name in pages:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        if (after := filled(before, every)) != before:
            path.write_text(after, encoding="utf-8")
            changed.append(name)
    return changed


def _table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
