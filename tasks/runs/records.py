"""What stages hand to each other: pointers. A record says what a stage made, from what, and where it lies.

To read is never to change: what is damaged is told, with the command by which the stage's next holder makes it again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import Field, JsonValue, SerializeAsAny, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeIs

from cures_core.config.base import Strict
from cures_core.config.run import RunConfig
from cures_core.errors import CorruptArtifact
from tasks.runs.figures import FIGURES, Figures
from tasks.storage.base import Store
from tasks.storage.values import decode_value, encode_value

RECORD_SCHEMA = 1
_WRITER = re.compile(r".*/(.+?)-\d+(\.\d+)?(-pruned)?")


F = TypeVar("F", bound=Figures)
F_co = TypeVar("F_co", bound=Figures, covariant=True)


class Record(Strict, Generic[F_co]):
    """Committed outcome of one stage; `stages/<stage>/<key>.json` in the store, written last and once."""

    schema_version: int = RECORD_SCHEMA
    """Format of this record."""
    stage: str
    """Stage name."""
    key: str
    """Digest of everything the stage read: same inputs, same key."""
    inputs: dict[str, JsonValue]
    """What the key was made of."""
    parents: tuple[str, ...] = ()
    """`stage/key` of the records this one was made from."""
    files: str | None = None
    """Prefix of its files in the store."""
    manifest: str | None = None
    """SHA-256 of the manifest of those files."""
    figures: SerializeAsAny[F_co]
    """Small results: digests, counts, scores. Their model is the stage's."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of what made it."""
    machine: dict[str, str] = Field(default_factory=dict)
    """What it was made on: processor, and where there was a policy device, threads or gpu, and dtype. Completions that
    were made before keep the machine that made them. Empty in records of earlier versions."""
    seconds: float = 0.0
    """Wall time of the work."""
    created_at: str = ""
    """UTC time of the commit, ISO 8601."""

    @field_validator("figures", mode="before")
    @classmethod
    def _of_the_stage(cls, value: object, info: ValidationInfo) -> object:
        kind = FIGURES.get(str(info.data.get("stage")))
        if kind is None:
            raise PydanticCustomError("stage", "of a stage that this version does not know")
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            context = {"field": ".".join(map(str, first["loc"])) or "they", "fault": first["msg"]}
            raise PydanticCustomError("figures", "{field}: {fault}", context) from error

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


def read_record(store: Store, kind: type[F], key: str) -> Record[F] | None:
    """The record of a stage, named by its figures, as it was written, whatever has become of its files; None where
    there is none.

    Raises `CorruptArtifact` for a damaged one.
    """
    return _of_kind(read_any(store, kind.stage, key), kind)


def read_any(store: Store, stage: str, key: str) -> Record[Figures] | None:
    """`read_record` for a stage that is known by its name alone."""
    data = store.get(record_place(stage, key))
    return None if data is None else parse_record(data, stage, key)


def parse_record(data: bytes, stage: str, key: str) -> Record[Figures]:
    """What the bytes of a record say. Raises `CorruptArtifact`."""
    place = record_place(stage, key)
    remedy = "To do its stage again: cures run --resume RUN, a run that uses it (`cures runs verify --all` names them)"
    record = decode_value(Record, data, place, remedy)
    if (record.stage, record.key) != (stage, key) or record.schema_version != RECORD_SCHEMA:
        raise CorruptArtifact(f"{place}: says that it is {record.id}, schema {record.schema_version}. {remedy}")
    return record


def has_figures(record: Record[Figures], kind: type[F]) -> TypeIs[Record[F]]:
    """Is it a record of this stage, or of one of the stages that share these figures?"""
    return isinstance(record.figures, kind)


def _of_kind(record: Record[Figures] | None, kind: type[F]) -> Record[F] | None:
    assert record is None or has_figures(record, kind)  # the stage, which was checked, decides the figures
    return record


def committed(store: Store, kind: type[F], key: str) -> Record[F] | None:
    """The record of this key, if there is one and its files are as they were when they were last read.

    Raises `CorruptArtifact` where record or files are damaged or gone.
    """
    return _of_kind(committed_any(store, kind.stage, key), kind)


def committed_any(store: Store, stage: str, key: str) -> Record[Figures] | None:
    """`committed` for a stage that is known by its name alone."""
    record = read_any(store, stage, key)
    if record is not None and record.files is not None:
        verify_record(store, record, deep=False)
    return record


def files_of(store: Store, record: Record[Figures]) -> Path:
    """A local folder with a stage's files, every byte checked before another stage builds on them.

    Raises `CorruptArtifact`.
    """
    if record.files is None:
        raise CorruptArtifact(f"{record.id}: has no files")
    verify_record(store, record)
    return store.local_path(record.files)


def verify_record(store: Store, record: Record[Figures], *, deep: bool = True) -> None:
    """Check the files of a record against its manifest (`Store.verify_files`). Raises `CorruptArtifact`."""
    try:
        store.verify_files(record.files or "", record.manifest, deep=deep)
    except CorruptArtifact as error:
        raise CorruptArtifact(f"{record.id}: {error}. {record.remedy}") from error


def record_bytes(record: Record[Figures]) -> bytes:
    """The record as the store keeps it."""
    return encode_value(record)
