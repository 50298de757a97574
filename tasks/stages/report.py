"""Stage: one self-contained HTML page about a run, made from the records alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cures_core.curriculum import load_posterior
from tasks.runs.notable_prompts import prompt_figures, suspicious_items
from tasks.runs.records import Record, RunRef, files_of
from tasks.runs.scores import gains, read_scores
from tasks.stages.stage import as_stage, run_stage
from tasks.stages.workspace import Workspace
from tasks.storage import Store

if TYPE_CHECKING:
    from cures_core.report import ReportData

SCHEMA = 4


@as_stage()
def report(
    run: RunRef,
    data: Record,
    policy: Record,
    states: Sequence[Record],
    scores: Sequence[Record],
    snapshots: Sequence[Record],
    decision: Record | None,
) -> Record:
    """Files: report.html, report.json (what the page shows), metrics.jsonl (all steps)."""
    records = [data, policy, *states, *scores, *snapshots, *([] if decision is None else [decision])]
    inputs = {"run": run.name, "records": [r.id for r in records]}

    def work(space: Workspace) -> Mapping[str, Any]:
        from cures_core.report import render

        shown = report_data(space.store, run, data, policy, states, scores, snapshots, decision)
        shown = shown.model_copy(update={"status": "completed"})
        (space.out / "report.html").write_text(render(shown), encoding="utf-8")
        (space.out / "report.json").write_text(shown.model_dump_json(indent=1), encoding="utf-8")
        (space.out / "metrics.jsonl").write_bytes(b"".join(_metric_lines(space.store, states[1:])))
        return {"steps": len(shown.steps), "bytes": (space.out / "report.html").stat().st_size}

    return run_stage(run, "report", SCHEMA, inputs, records, work)


def report_data(
    store: Store,
    run: RunRef,
    data: Record | None,
    policy: Record | None,
    states: Sequence[Record],
    scores: Sequence[Record],
    snapshots: Sequence[Record],
    decision: Record | None,
) -> ReportData:
    """What the page shows, of the records there are: `states` are prior and epochs in order; any may be missing."""
    from cures_core.report import ReportData

    records = [r for r in (data, policy, *states, *scores, *snapshots, decision) if r is not None]
    steps = _steps(store, states[1:])
    paired_rows = gains(store, run.config, scores[0], scores[-1]) if len(scores) > 1 else []
    parts: dict[str, Any] = {
        **_about(run, records, _epochs(states)),
        "scores": _scores(store, states, scores),
        **(_gains(paired_rows) if paired_rows else {}),
        "steps": steps,
        "posteriors": _posteriors(store, states),
        "examples": _examples(store, scores[-1]) if scores else [],
        "snapshots": [{"tag": s.figures["tag"], "md5": s.figures["md5"]} for s in snapshots],
        "decision": None if decision is None else _pick(decision.figures, "promoted", "reasons"),
        "cost": _cost(states, scores),
        "notices": [*_origin(run), *_unlike(paired_rows), *_notices(steps)],
    }
    if states:
        parts["reliability"] = states[-1].figures.get("reliability", [])
        parts["notices"] = [*_moved(run, states[0]), *parts["notices"]]
    if data is not None:
        parts["validation"] = _validation(store, data)
    if data is not None and states:
        parts["named"] = prompt_figures(store, data, states[0], states[-1])
    if data is not None and scores:
        suites = [suite.name for suite in run.config.evaluation.suites]
        parts["suspicious_items"] = suspicious_items(store, data, scores, suites)
    return ReportData.model_validate(parts)


def _about(run: RunRef, records: Sequence[Record], epochs: Mapping[str, int]) -> dict[str, Any]:
    stages = [{"name": r.stage, "label": _label(r, epochs), "key": r.key, "seconds": r.seconds} for r in records]
    return {
        "run": run.name,
        "config": run.config.model_dump(mode="json"),
        "started_at": min((r.created_at for r in records), default=""),
        "seconds": round(sum(r.seconds for r in records), 1),
        "stages": stages,
        "lineage": [(parent, r.id) for r in records for parent in r.parents],
        "versions": dict(sorted(records[-1].versions.items())) if records else {},
    }


def _label(record: Record, epochs: Mapping[str, int]) -> str:
    """The epoch, where a stage belongs to one."""
    match record.stage:
        case "train_epoch":
            return str(record.inputs["epoch"])
        case "evaluate_checkpoint":
            return str(epochs.get(record.inputs["weights"], 0))
        case "snapshot_posterior":
            return str(record.figures["tag"]).rpartition("/")[2]
        case _:
            return ""


def _epochs(states: Sequence[Record]) -> dict[str, int]:
    """Epoch by digest of the weights."""
    return {state.figures.get("weights_digest", ""): k for k, state in enumerate(states)}


def _metric_lines(store: Store, epochs: Sequence[Record]) -> list[bytes]:
    return [(files_of(store, epoch) / "checkpoint" / "metrics.jsonl").read_bytes() for epoch in epochs]


def _steps(store: Store, epochs: Sequence[Record]) -> list[dict[str, Any]]:
    """Metrics of every step with its wall time."""
    rows: list[dict[str, Any]] = []
    for epoch, lines in zip(epochs, _metric_lines(store, epochs), strict=True):
        timings = _json_lines(files_of(store, epoch) / "timings.jsonl")
        seconds = {t["step"]: t["seconds"] for t in timings}
        for row in (json.loads(line) for line in lines.splitlines()):
            rows.append({**row, "seconds": seconds.get(row["step"], 0.0)})
    return rows


def _scores(store: Store, states: Sequence[Record], scores: Sequence[Record]) -> list[dict[str, Any]]:
    epochs, rows = _epochs(states), []
    for record in scores:
        k = epochs.get(record.inputs["weights"], 0)
        rows.append(
            {
                "label": f"after epoch {k}" if k else "before training",
                "rollouts": states[k].figures["rollouts"] if k else 0,
                "tokens": states[k].figures["tokens"] if k else 0,
                "seconds": sum(one.seconds for one in states[1 : k + 1]),
                "suites": [score.model_dump() for score in read_scores(store, record)],
            }
        )
    return rows


def _gains(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    greedy = {row["suite"]: row["gain"] for row in rows if row["measure"] == "greedy"}
    return {
        "gains": {row["suite"]: row["gain"] for row in rows if row["measure"] != "greedy"},
        "greedy_gains": greedy,
    }


def _posteriors(store: Store, states: Sequence[Record]) -> list[dict[str, Any]]:
    rows = []
    for k, state in enumerate(states):
        summary = load_posterior(files_of(store, state) / "posterior.parquet").summary()
        kept = _pick(summary, "histogram", "prompts", "evidence", "dead_share", "frontier_share")
        rows.append({"label": f"epoch {k}" if k else "prior", **kept})
    return rows


def _examples(store: Store, record: Record) -> list[dict[str, Any]]:
    rows = _json_lines(files_of(store, record) / "examples.jsonl")
    return [_pick(row, "suite", "problem", "gold", "completion", "outcome") for row in rows]


def _validation(store: Store, data: Record) -> dict[str, Any]:
    summary = json.loads((files_of(store, data) / "validation.json").read_bytes())
    figures = _pick(summary["prompts"], "rows_read", "kept", "rejected", "dropped", "reasons")
    suites = {name: suite["kept"] for name, suite in summary["suites"].items()}
    read_as = summary["prompts"].get("read_as")  # older validations do not say
    shown = "Read as {layout}: problem from {problem}, answer from {answer}".format(**read_as) if read_as else ""
    return {**figures, "suites": suites, "read_as": shown}


def _cost(states: Sequence[Record], scores: Sequence[Record]) -> dict[str, Any]:
    parts = {
        "prior": [states[0].figures] if states else [],
        "train": [states[-1].figures] if len(states) > 1 else [],
        "eval": [s.figures for s in scores],
    }
    return {
        name: {key: sum(f[key] for f in figures) for key in ("rollouts", "tokens")} for name, figures in parts.items()
    }


def _moved(run: RunRef, prior: Record) -> list[str]:
    """How the prior predicts unseen prompts, and what became of an earlier run's posterior."""
    tag, f = run.config.prior.start_from, prior.figures
    lines = [f["prediction"]] if f["prediction"] else []
    if tag is None:
        return lines
    return [
        *lines,
        f"Started from {tag}: {f['kept'] + f['restored']:,} prompts kept their evidence, {f['new']:,} new or edited "
        f"ones were reset ({f['prompts']:,} of them rolled out), {f['archived']:,} were archived.",
    ]


def _origin(run: RunRef) -> list[str]:
    return [] if run.config.fork is None else [f"This run is a {run.config.fork.words}; up to there it is the other's."]


def _unlike(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Suites whose scores before and after were made by other versions or on another machine."""
    reasons = {row["suite"]: "; ".join(row["unlike"]) for row in rows}
    return [f"{suite} was scored unlike before and after ({words})." for suite, words in reasons.items() if words]


def _notices(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader should know before believing the rest."""
    found = []
    if max((row.get("unknown_share", 0.0) for row in steps), default=0.0) > 0.01:
        found.append("In some steps more than 1 % of the completions got no verdict; they were left out of training.")
    truncated = [row["truncated_share"] for row in steps if "truncated_share" in row]
    if truncated and sum(truncated) / len(truncated) > 0.2:
        found.append("More than a fifth of the completions ran into the token limit: raise rollout.max_new_tokens.")
    if sum(row.get("non_finite", 0.0) for row in steps):
        found.append("Some steps had a non-finite loss or gradient and changed nothing.")
    return found


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def _pick(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}
