"""What a run's records say of its training: metrics, kept rollouts, scores by checkpoint, and what was spent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from pydantic import TypeAdapter

from cures_core.config.run import RunConfig
from cures_core.kept_rollouts.table import FILE, KeptRollout, KeptRollouts, read_rollouts
from cures_core.report.run_data import Scored, Spent
from tasks.runs.figures import EpochFigures, EvaluateFigures, StateFigures
from tasks.runs.reading import RunRecords
from tasks.runs.records import Record, files_of
from tasks.runs.scores import read_scores
from tasks.storage import Store

Metrics = dict[str, float | str]
"""A row of metrics.jsonl: `cures_core.epoch.step_metrics`."""
_METRICS = TypeAdapter(Metrics)


def metric_lines(store: Store, epoch: Record[EpochFigures]) -> bytes:
    """The metrics of an epoch's steps, a line of JSON each."""
    return (files_of(store, epoch) / "checkpoint" / "metrics.jsonl").read_bytes()


def parse_metrics(lines: bytes) -> list[Metrics]:
    """Rows of a metrics.jsonl. Raises `ValueError` for what is none."""
    return [_METRICS.validate_json(line) for line in lines.splitlines()]


def number(row: Metrics, name: str) -> float | None:
    """A metric of that name; None where the step has none, as of a mean over nothing."""
    value = row.get(name)
    return value if isinstance(value, float) else None


def steps(store: Store, epochs: Iterable[Record[EpochFigures]]) -> list[Metrics]:
    """Metrics of every step, with its wall time as `seconds`."""
    rows: list[Metrics] = []
    for epoch in epochs:
        path = files_of(store, epoch) / "timings.jsonl"
        timings = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
        seconds = {timing["step"]: timing["seconds"] for timing in timings}
        rows += [{**row, "seconds": seconds.get(row["step"], 0.0)} for row in parse_metrics(metric_lines(store, epoch))]
    return rows


def kept_in(store: Store, cfg: RunConfig, epoch: Record[EpochFigures]) -> tuple[KeptRollout, ...] | None:
    """The rollouts kept of an epoch, as far as a run of this configuration may show them; None where it was trained by
    a version that kept none. Raises `CorruptArtifact`."""
    path = files_of(store, epoch) / FILE
    return tuple(_readable(cfg, read_rollouts(path))) if path.exists() else None


def _readable(cfg: RunConfig, found: KeptRollouts) -> Iterator[KeptRollout]:
    """No text of a file that was made without the redaction of the run, wherever it comes from, is shown."""
    readable = cfg.redact is None or found.redaction.partition(" ")[0] == cfg.redact
    empty = {"problem": "", "answer": "", "completion": "", "extracted": "", "reason": "", "withheld": True}
    for row in found.rows:
        yield row if readable else replace(row, **empty)  # type: ignore[arg-type]


def scored(store: Store, records: RunRecords) -> list[Scored]:
    """The scores of every evaluation, with what training had cost by then."""
    return [_scored(store, k, record, records.epochs) for k, record in records.evaluations.items()]


def _scored(
    store: Store, k: int, record: Record[EvaluateFigures], epochs: Mapping[int, Record[EpochFigures]]
) -> Scored:
    epoch = epochs.get(k)
    return Scored(
        label=f"after epoch {k}" if k else "before training",
        rollouts=0 if epoch is None else epoch.figures.rollouts,
        tokens=0 if epoch is None else epoch.figures.tokens,
        seconds=sum(one.seconds for number, one in epochs.items() if number <= k),
        suites=tuple(read_scores(store, record)),
    )


def spent(records: RunRecords) -> dict[str, Spent]:
    """Rollouts and tokens of prior, train and eval, and of the solutions of a supervised warm start. Those of an epoch
    count from the start of training."""
    parts: dict[str, list[StateFigures | EvaluateFigures]] = {
        "prior": [] if records.prior is None else [records.prior.figures],
        "train": [record.figures for record in list(records.epochs.values())[-1:]],
        "eval": [record.figures for record in records.evaluations.values()],
    }
    cost = {
        name: Spent(rollouts=sum(one.rollouts for one in found), tokens=sum(one.tokens for one in found))
        for name, found in parts.items()
    }
    if records.policy is not None and (taught := records.policy.figures.tokens):
        cost["warm start"] = Spent(rollouts=0, tokens=taught)
    return cost
