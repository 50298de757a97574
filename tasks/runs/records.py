"""What stages hand to each other: pointers. A record says what a stage made, from what, and where it lies.

To read is never to change: what is damaged is told, with the command by which the stage's next holder makes it again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field

from cures_core.config.base import Strict
from cures_core.config.run import RunConfig
from cures_core.errors import CorruptArtifact
from tasks.storage.base import Store
from tasks.storage.values import decode_value, encode_value

RECORD_SCHEMA = 1
_WRITER = re.compile(r".*/(.+?)-\d+(\.\d+)?(-pruned)?")


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
    machine: dict[str, str] = Field(default_factory=dict)
    """What it was made on: processor, and where there was a policy device, threads or gpu, and dtype. Completions that
    were made before keep the machine that made them. Empty in records of earlier versions."""
    seconds: float = 0.0
    """Wall time of the work."""
    created_at: str = ""
    """UTC time of the commit, ISO 8601."""

    @property
    def id(self) -> str:
        return f"{self.stage}/{self.key}"

    @property
    def remedy(self) -> str:
        """The command that makes it again, where it was damaged."""
        writer = _WRITER.fullmatch(self.files or "")
        run = "RUN, a run that uses it" if writer is None else writer[1]
        return f"To do this stage again: cures run --resume {run}"


class RunRef(Strict):
    """Names a run to a task: everything a stage may read of it, and the right to commit."""

    name: str
    """Run name."""
    config: RunConfig
    """Resolved configuration."""
    token: int
    """Fencing token of the run's lease: a commit with an older one is refused."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of everything that the run reads beside its configuration when it is started, by the setting that names
    it (`tasks.inputs.digests`)."""
    again: dict[str, int] = Field(default_factory=dict)
    """Stages that a person has asked to do again, as in `train_epoch-2`, and how often."""

    def times(self, stage: str, label: str | int) -> int:
        """How often a stage is to be done again: 0 where nobody has asked for it."""
        return self.again.get(f"{stage}-{label}" if label != "" else stage, 0)


def record_place(stage: str, key: str) -> str:
    """Where the store keeps a record."""
    return f"stages/{stage}/{key}.json"


def read_record(store: Store, stage: str, key: str) -> Record | None:
    """The record as it was written, whatever has become of its files; None where there is none.

    Raises `CorruptArtifact` for a damaged one.
    """
    data = store.get(record_place(stage, key))
    return None if data is None else parse_record(data, stage, key)


def parse_record(data: bytes, stage: str, key: str) -> Record:
    """What the bytes of a record say. Raises `CorruptArtifact`."""
    place = record_place(stage, key)
    remedy = "To do its stage again: cures run --resume RUN, a run that uses it (`cures runs verify --all` names them)"
    record = decode_value(Record, data, place, remedy)
    if (record.stage, record.key) != (stage, key) or record.schema_version != RECORD_SCHEMA:
        raise CorruptArtifact(f"{place}: says that it is {record.id}, schema {record.schema_version}. {remedy}")
    return record


def committed(store: Store, stage: str, key: str) -> Record | None:
    """The record of this key, if there is one and its files are as they were when they were last read.

    Raises `CorruptArtifact` where record or files are damaged or gone.
    """
    record = read_record(store, stage, key)
    if record is not None and record.files is not None:
        verify_record(store, record, deep=False)
    return record


def files_of(store: Store, record: Record) -> Path:
    """A local folder with a stage's files, every byte checked before another stage builds on them.

    Raises `CorruptArtifact`.
    """
    if record.files is None:
        raise CorruptArtifact(f"{record.id}: has no files")
    verify_record(store, record)
    return store.local_path(record.files)


def verify_record(store: Store, record: Record, *, deep: bool = True) -> None:
    """Check the files of a record against its manifest (`Store.verify_files`). Raises `CorruptArtifact`."""
    try:
        store.verify_files(record.files or "", record.manifest, deep=deep)
    except CorruptArtifact as error:
        raise CorruptArtifact(f"{record.id}: {error}. {record.remedy}") from error


def record_bytes(record: Record) -> bytes:
    """The record as the store keeps it."""
    return encode_value(record)
