"""Long generation in saved chunks: a killed job repeats one chunk at most and counts no rollout twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cures_core.faults import fault_point
from cures_core.files import canonical_json, write_atomic
from cures_core.jobs.parent import Parent
from cures_core.terms import Request


def in_chunks(
    requests: Sequence[Request],
    size: int,
    folder: Path,
    work: Callable[[Sequence[Request]], list[dict[str, Any]]],
    parent: Parent,
    name: str,
) -> list[dict[str, Any]]:
    """Apply `work` to `size` requests at a time, one JSON row for each request; rows already in `folder` are reused."""
    rows: list[dict[str, Any]] = []
    for start in range(0, len(requests), size):
        chunk = requests[start : start + size]
        path = folder / f"{name}-{size}-{start:08d}.json"  # another size cuts elsewhere
        if path.exists():
            rows += json.loads(path.read_bytes())
        else:
            done = work(chunk)
            write_atomic(path, canonical_json(done))
            rows += done
            fault_point(f"{name}.chunk", str(start // size))
            parent.stop_if_asked(f"{len(rows)} of {len(requests)} {name} prompts")
        parent.emit(name, done=len(rows), total=len(requests))
    return rows
