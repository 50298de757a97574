"""Knows what is kept of a rollout, and its two forms on disk: a line in a checkpoint, a row of Parquet in a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from cures_core.errors import CorruptArtifact
from cures_core.failures import machine_failure
from cures_core.files import canonical_json

FILE = "rollouts.parquet"
SCHEMA_VERSION = 1
_VERSION_KEY, _REDACTION_KEY = b"cures.rollouts.schema", b"cures.rollouts.redaction"


@dataclass(frozen=True, slots=True)
class KeptRollout:
    """A rollout of training with its texts. All of them are empty where it is withheld."""

    epoch: int
    step: int
    prompt: str
    """Content id of the prompt."""
    source: str
    level: str
    request: str
    """Rollouts of one request are a group."""
    index: int
    """Number of the rollout in its request."""
    kept_for: str
    """Why it is kept: `prompt` (asked for by id), `share`, `unknown` (no verdict) or `suspicious`."""
    problem: str
    """With what was said before it (`chats.transcript`)."""
    answer: str
    """The gold answer."""
    completion: str
    outcome: str
    """correct, wrong or unknown."""
    extracted: str
    """The answer that the verifier read."""
    rule: str
    """By which it read or judged it."""
    reason: str
    """Why the verdict is what it is."""
    reward: float | None
    """None where the verdict is unknown."""
    advantage: float | None
    """None where the update left it out: no verdict, or nothing to learn from its group."""
    tokens: int
    """Of the completion."""
    finish_reason: str
    """stop, or length: cut at the token limit."""
    logprob_gap: float | None
    """Mean over the tokens of |log-probability by the trainer - by the engine|, nats; None where the update left it
    out."""
    cut: int
    """Characters of problem and completion that were left out, because they are too long."""
    withheld: bool
    """The redaction failed on it."""


_TYPES = {"str": pa.string(), "int": pa.int64(), "bool": pa.bool_(), "float | None": pa.float64()}
_SCHEMA = pa.schema(
    [pa.field(f.name, _TYPES[str(f.type)], nullable="None" in str(f.type)) for f in fields(KeptRollout)]
)
_ROW = TypeAdapter(KeptRollout)


@dataclass(frozen=True)
class KeptRollouts:
    """The rows of a file, and by what they were redacted (`redaction.mark_of`)."""

    rows: tuple[KeptRollout, ...]
    redaction: str = ""


def to_line(row: KeptRollout) -> bytes:
    """The row as a line of JSON; equal rows give equal bytes."""
    return canonical_json(asdict(row)) + b"\n"


def from_line(line: bytes) -> KeptRollout:
    """Undo `to_line`. Raises `ValueError` for anything else."""
    return _ROW.validate_json(line)


def write_rollouts(rows: Sequence[KeptRollout], path: Path, redaction: str = "") -> None:
    """Write the rows in their order; equal rows give equal bytes under one version of pyarrow. Not atomic."""
    columns = list(zip(*map(astuple, rows), strict=True)) or [()] * len(_SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    schema = _SCHEMA.with_metadata({_VERSION_KEY: str(SCHEMA_VERSION), _REDACTION_KEY: redaction})
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path, compression="zstd")


def read_rollouts(path: Path) -> KeptRollouts:
    """Read what `write_rollouts` wrote. Raises `CorruptArtifact` for anything else."""
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise machine_failure(error, path) or CorruptArtifact(
            f"{path}: not a readable Parquet file ({error}); train the epoch again"
        ) from error
    metadata = table.schema.metadata or {}
    version = metadata.get(_VERSION_KEY, b"none").decode()
    if version != str(SCHEMA_VERSION) or not table.schema.equals(_SCHEMA):
        raise CorruptArtifact(f"{path}: rollouts of schema {version}, this version reads {SCHEMA_VERSION}")
    rows = tuple(KeptRollout(**row) for row in table.to_pylist())
    return KeptRollouts(rows, metadata.get(_REDACTION_KEY, b"").decode())
