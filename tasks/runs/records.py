"""What stages hand to each other: pointers. A record says what a stage made, from what, and where it lies."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from cures_core.config.base import Strict
from cures_core.config.run import RunConfig

RECORD_SCHEMA = 1


class Record(Strict):
    """Committed outcome of one stage; `stages/<stage>/<key>.json` in the store, written last and once."""

    schema_version: int = RECORD_SCHEMA
    """Format of this record."""
    stage: str
    """Stage name."""
    key: str
    """Digest of everything the stage read: same inputs, same key."""
    inputs: dict[str, Any]
    """What the key was made of."""
    parents: tuple[str, ...] = ()
    """`stage/key` of the records this one was made from."""
    files: str | None = None
    """Prefix of its files in the store."""
    manifest: str | None = None
    """SHA-256 of the manifest of those files."""
    figures: dict[str, Any] = Field(default_factory=dict)
    """Small results: digests, counts, scores."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of what made it."""
    seconds: float = 0.0
    """Wall time of the work."""
    created_at: str = ""
    """UTC time of the commit, ISO 8601."""

    @property
    def id(self) -> str:
        return f"{self.stage}/{self.key}"


class RunRef(Strict):
    """Names a run to a task: everything a stage may read of it, and the right to commit."""

    name: str
    """Run name."""
    config: RunConfig
    """Resolved configuration."""
    token: int
    """Fencing token of the run's lease: a commit with an older one is refused."""
    data_digest: str
    """Digest of the prompt set's bytes, and of the flags, when the run was started."""
    file_digest: str = ""
    """SHA-256 of the prompt set's bytes alone."""
