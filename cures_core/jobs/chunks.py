"""Long generation in saved chunks: a killed job repeats one chunk at most and counts no rollout twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from cures_core.events import PartDone
from cures_core.faults import fault_point
from cures_core.jobs.kept import keep, kept
from cures_core.jobs.parent import Parent
from cures_core.machine import joined_machines
from cures_core.rewards.verifier import Verifier
from cures_core.terms import Request

_JUDGING, _MACHINE = "judging", "machine"


def in_chunks(
    requests: Sequence[Request],
    size: int,
    folder: Path,
    work: Callable[[Sequence[Request]], list[dict[str, Any]]],
    parent: Parent,
    name: str,
) -> list[dict[str, Any]]:
    """Apply `work` to `size` requests at a time, one JSON row for each request; rows already in `folder` are reused,
    unless they are damaged."""
    rows: list[dict[str, Any]] = []
    for start in range(0, len(requests), size):
        chunk = requests[start : start + size]
        path = folder / f"{name}-{size}-{start:08d}.json"  # another size cuts elsewhere
        found: list[dict[str, Any]] | None = kept(path)
        if found is not None and len(found) == len(chunk):
            rows += found
        else:
            done = work(chunk)
            keep(path, done)
            rows += done
            fault_point(f"{name}.chunk", str(start // size))
            parent.stop_if_asked(f"{len(rows)} of {len(requests)} {name} prompts")
        parent.emit(PartDone(part=name, done=len(rows), total=len(requests)))
    return rows


def noted(rows: list[dict[str, Any]], verifier: Verifier, machine: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of a chunk; the first one keeps which machine made them and what their verdicts have cost, so that a job
    that is resumed, here or elsewhere, knows it too."""
    rows[0][_MACHINE] = machine
    if cost := {name: value for name, value in verifier.figures().items() if value}:
        rows[0][_JUDGING] = cost
    return rows


def made_on(rows: Iterable[dict[str, Any]], here: dict[str, str]) -> dict[str, str]:
    """The machines that made the rows, as one; `here` for rows of earlier versions, which kept none."""
    return joined_machines([row[_MACHINE] for row in rows if _MACHINE in row] or [here])


def cost_of(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """What all verdicts have cost, by figure of their verifiers; empty where they cost nothing."""
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row.get(_JUDGING, {}))
    return dict(total)
