"""The prompts that a report follows through a run: what was believed of them, and what the policy wrote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

from cures_core.config.run import RunConfig
from cures_core.curriculum import load_posterior
from cures_core.kept_rollouts.keeper import shorten
from cures_core.kept_rollouts.table import KeptRollout
from cures_core.report.run_data import Believed, Named, Story, Written
from tasks.runs.reading import RunRecords
from tasks.runs.records import files_of
from tasks.runs.training import kept_in
from tasks.storage import Store

T = TypeVar("T")

PROMPTS, ROLLOUTS, STATES = 24, 6, 12
"""Most prompts of a page, rollouts of each, and posteriors."""
_PROBLEM_BYTES, _COMPLETION_BYTES, _SHORT_BYTES = 600, 1200, 200


def prompt_stories(store: Store, cfg: RunConfig, records: RunRecords, named: Named) -> Iterator[Story]:
    """Of prompts with kept rollouts whose texts may be shown: those that the report names, then those with the most."""
    rows: dict[str, list[KeptRollout]] = defaultdict(list)
    for epoch in records.epochs.values():
        for row in kept_in(store, cfg, epoch) or ():
            if not row.withheld:
                rows[row.prompt].append(row)
    if not rows:
        return
    tables = (*(one.rows for one in named.suspicious), named.moved, named.hardest)
    first = [row.id for table in tables for row in table if row.id in rows]
    most = sorted(rows, key=lambda name: (-len(rows[name]), name))
    names = list(dict.fromkeys([*first, *most]))[:PROMPTS]
    beliefs = _beliefs(store, records, names)
    for name in names:
        yield Story(
            id=name,
            problem=shorten(rows[name][0].problem, _PROBLEM_BYTES)[0],
            answer=shorten(rows[name][0].answer, _SHORT_BYTES)[0],
            beliefs=tuple(beliefs[name]),
            kept=len(rows[name]),
            rollouts=tuple(_written(row) for row in spread(rows[name], ROLLOUTS)),
        )


def spread(values: Sequence[T], most: int) -> list[T]:
    """At most so many of them, evenly, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _beliefs(store: Store, records: RunRecords, names: Sequence[str]) -> dict[str, list[Believed]]:
    found: dict[str, list[Believed]] = defaultdict(list)
    for k in spread(list(records.states), STATES):
        posterior = load_posterior(files_of(store, records.states[k]) / "posterior.parquet")
        rows = posterior.rows(names)
        low, high = posterior.interval(rows)
        for name, *figures in zip(names, posterior.mean(rows).tolist(), low.tolist(), high.tolist(), strict=True):
            mean, least, most = figures
            label = f"epoch {k}" if k else "prior"
            found[name].append(Believed(label=label, step=posterior.step, mean=mean, low=least, high=most))
    return found


def _written(row: KeptRollout) -> Written:
    return Written(
        step=row.step,
        outcome=row.outcome,
        reason=shorten(row.reason, _SHORT_BYTES)[0],
        reward=row.reward,
        advantage=row.advantage,
        tokens=row.tokens,
        truncated=row.finish_reason == "length",
        completion=shorten(row.completion, _COMPLETION_BYTES)[0],
    )
