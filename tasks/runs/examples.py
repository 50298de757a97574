"""Completions that a report shows: of the same items before and after training, failures among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from cures_core.report.run_data import Example
from tasks.runs.figures import EvaluateFigures
from tasks.runs.records import Record, files_of
from tasks.storage import Store

SHOWN = 8
"""Of each suite."""
_ORDER = (("correct", "wrong"), ("wrong", "wrong"), ("wrong", "correct"), ("correct", "correct"))
"""(before, after): what got worse first, then what stays wrong, then what was learnt, then what was known."""


class Kept(TypedDict):
    """A line of examples.jsonl, as `cures_core.jobs.evaluate` writes it."""

    suite: str
    id: str
    problem: str
    gold: str
    completion: str
    outcome: str


_KEPT = TypeAdapter(Kept)


def examples(
    store: Store,
    first: Record[EvaluateFigures],
    last: Record[EvaluateFigures],
    shown: Callable[[str], str] = lambda text: text,
) -> list[Example]:
    """Of each suite up to eight, of every kind of change in turn, as far as there are some. `shown`: what a page may
    show of a text."""
    before = {} if first.id == last.id else {(row["suite"], row["id"]): row for row in _kept(store, first)}
    by_suite: dict[str, list[Example]] = {}
    for row in _kept(store, last):
        by_suite.setdefault(row["suite"], []).append(_example(row, before.get((row["suite"], row["id"])), shown))
    return [example for found in by_suite.values() for example in _some_of_each(found)]


def _example(row: Kept, before: Kept | None, shown: Callable[[str], str]) -> Example:
    return Example(
        suite=row["suite"],
        problem=shown(row["problem"]),
        gold=shown(row["gold"]),
        completion=shown(row["completion"]),
        outcome=row["outcome"],
        before="" if before is None else shown(before["completion"]),
        before_outcome="" if before is None else before["outcome"],
    )


def _some_of_each(found: Iterable[Example]) -> list[Example]:
    """In turns: the first of every kind, the second of every kind, and so on; shown kind by kind."""
    kinds: dict[tuple[str, str], list[Example]] = {kind: [] for kind in _ORDER}
    for example in found:
        before, after = (
            "correct" if outcome == "correct" else "wrong"
            for outcome in (example.before_outcome or example.outcome, example.outcome)
        )
        kinds[before, after].append(example)
    turns = sorted((i, k) for k, members in enumerate(kinds.values()) for i in range(len(members)))[:SHOWN]
    members = list(kinds.values())
    return [members[k][i] for k, i in sorted((k, i) for i, k in turns)]


def _kept(store: Store, record: Record[EvaluateFigures]) -> list[Kept]:
    path = files_of(store, record) / "examples.jsonl"
    return [_KEPT.validate_json(line) for line in path.read_bytes().splitlines()] if path.exists() else []
