"""Posterior snapshots, versioned with DVC and git."""

from __future__ import annotations

from tasks.snapshots.publish import publish_snapshot
from tasks.snapshots.reading import (
    Snapshot,
    SnapshotDiff,
    diff_snapshots,
    find_snapshot,
    list_snapshots,
    read_snapshot,
)

__all__ = [
    "Snapshot",
    "SnapshotDiff",
    "diff_snapshots",
    "find_snapshot",
    "list_snapshots",
    "publish_snapshot",
    "read_snapshot",
]
