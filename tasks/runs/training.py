"""What a run's records say of its training: metrics, kept rollouts, scores by checkpoint, and what was spent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from pydantic import TypeAdapter

from cures_core.config.curriculum import CuresConfig, ScreenAllocation
from cures_core.config.run import RunConfig
from cures_core.kept_rollouts.table import FILE, KeptRollout, KeptRollouts, read_rollouts
from cures_core.report.run_data import Scored, Spent, Wasted
from cures_core.rewards.judged import TOKENS
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


def entropy_of(row: Metrics) -> float | None:
    """Entropy of the policy in a step, nats a token: over all rollouts; of versions that told none of those, over what
    was trained on."""
    sampled = number(row, "sampled_entropy")
    return number(row, "entropy") if sampled is None else sampled


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


def scored(store: Store, records: RunRecords, rows: Sequence[Metrics]) -> list[Scored]:
    """The scores of every evaluation, with what training had cost by then. `rows`: `steps` of the run."""
    return [_scored(store, k, record, records.epochs, rows) for k, record in records.evaluations.items()]


def _scored(
    store: Store,
    k: int,
    record: Record[EvaluateFigures],
    epochs: Mapping[int, Record[EpochFigures]],
    rows: Sequence[Metrics],
) -> Scored:
    by_then = {number: epoch for number, epoch in epochs.items() if number <= k}
    epoch = epochs.get(k)
    return Scored(
        label=f"after epoch {k}" if k else "before training",
        rollouts=0 if epoch is None else epoch.figures.rollouts,
        tokens=0 if epoch is None else epoch.figures.tokens,
        seconds=training_seconds(by_then, rows),
        updates=0 if epoch is None else updates(rows, epoch.figures.step),
        suites=tuple(read_scores(store, record)),
    )


def updates(rows: Iterable[Metrics], last: int) -> int:
    """How many steps up to step `last` changed the policy."""
    return sum(bool(number(row, "updated")) for row in rows if int(row["step"]) <= last)


def training_seconds(epochs: Mapping[int, Record[EpochFigures]], rows: Sequence[Metrics]) -> float:
    """Wall time of these epochs, which are a run's first ones. The record of an epoch that was interrupted tells of its
    last attempt alone, and its steps of all that was not lost: what is longer counts."""
    total, done = 0.0, 0
    for epoch in epochs.values():
        own = [number(row, "seconds") or 0.0 for row in rows if done < int(row["step"]) <= epoch.figures.step]
        total, done = total + max(epoch.seconds, sum(own)), epoch.figures.step
    return total


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
        cost["warm_start"] = Spent(rollouts=0, tokens=taught)
    return cost


def accounts(records: RunRecords, rows: Sequence[Metrics]) -> dict[str, Spent]:
    """`spent` with wall seconds, updates and judges' tokens, and every warm start before it."""
    policy, last = records.policy, max((int(row["step"]) for row in rows), default=0)
    seconds = {
        "warm_start": 0.0 if policy is None else policy.seconds,
        "prior": 0.0 if records.prior is None else records.prior.seconds,
        "train": training_seconds(records.epochs, rows),
        "eval": sum(record.seconds for record in records.evaluations.values()),
    }
    steps = {"warm_start": 0 if policy is None else int(policy.figures.steps), "train": updates(rows, last)}
    judged = {
        "prior": 0.0 if records.prior is None else sum(records.prior.figures.judging.values()),
        "train": sum(number(row, name) or 0.0 for row in rows for name in TOKENS),
        "eval": sum(sum(record.figures.judging.values()) for record in records.evaluations.values()),
    }
    found = {"warm_start": Spent(rollouts=0, tokens=0), **spent(records)}
    return {
        name: one.model_copy(
            update={
                "seconds": seconds[name],
                "updates": steps.get(name, 0),
                "judge_tokens": int(judged.get(name, 0)),
            }
        )
        for name, one in found.items()
        if name != "warm_start" or steps[name]
    }


def wasted(cfg: RunConfig, rows: Sequence[Metrics]) -> Wasted:
    """What of the rollouts of training screened, and what entered no update, as far as the steps tell."""
    screens = isinstance(cfg.curriculum, CuresConfig) and isinstance(cfg.curriculum.allocation, ScreenAllocation)
    paid, used, tokens = (_sum(rows, name) for name in ("step_rollouts", "rollouts_trained", "tokens_trained"))
    unused = None if paid is None or used is None else round(paid - used)
    of_tokens = None if tokens is None or unused is None else round((number(rows[-1], "tokens_total") or 0.0) - tokens)
    groups = _sum(rows, "groups")
    return Wasted(
        first_tries=round(groups) if screens and groups is not None else None, unused=unused, unused_tokens=of_tokens
    )


def _sum(rows: Sequence[Metrics], name: str) -> float | None:
    """None where a step does not tell it, or there is no step."""
    values = [value for row in rows if (value := number(row, name)) is not None]
    return sum(values) if rows and len(values) == len(rows) else None
