"""Knows a set of prompts as columns of text in Arrow, sorted by content id, and its one form on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cures_core.errors import CorruptArtifact, DataRejected, MissingInput
from cures_core.failures import machine_failure
from cures_core.terms import Prompt

COLUMNS = ("id", "problem", "answer", "source", "level", "subject", "verifier")
_LATER = ("verifier",)
"""Columns that a set, and its file, may lack: those of schema 2, which is written only where one of them is in use."""
SCHEMA_VERSION = 2

_SCHEMA = pa.schema([pa.field(name, pa.large_string(), nullable=False) for name in COLUMNS])
_ROW_GROUP = 100_000


class PromptSet(Sequence[Prompt]):
    """Prompts in order of id, each id once. Order in a source file means nothing: a shuffled file is the same set.

    Columns `id, problem, answer, source, level, subject, verifier`, all text, "" for unknown. Immutable.
    """

    def __init__(self, table: pa.Table) -> None:
        """Take a table of text columns in any row order, later ones left out or not; `DataRejected` if an id occurs
        twice."""
        for name in _LATER:
            if name not in table.column_names:
                table = table.append_column(name, pa.array([""] * table.num_rows, pa.large_string()))
        order = pc.sort_indices(table.column("id"))
        # Column by column: a set of millions is held twice at most.
        self._columns = [_one_chunk(table.column(name)).take(order) for name in COLUMNS]
        if empty := [name for name, column in zip(COLUMNS, self._columns, strict=True) if column.null_count]:
            raise DataRejected(f'column {empty[0]} of a prompt set holds nulls: write "" for unknown')
        self._table = pa.Table.from_arrays(self._columns, schema=_SCHEMA)
        ids = self._columns[0]
        if len(ids) > 1:
            same = pc.equal(ids[1:], ids[:-1])
            if pc.any(same).as_py():
                twice = ids[pc.index(same, True).as_py()].as_py()
                raise DataRejected(f"prompt id {twice} occurs twice in one set: drop one of the two rows")

    @classmethod
    def of(cls, prompts: Iterable[Prompt]) -> PromptSet:
        """A set of the given prompts, under the ids they bring."""
        rows = [(p.id, p.problem, p.answer, p.source, p.level, p.subject, p.verifier) for p in prompts]
        columns: Sequence[Sequence[str]] = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
        return cls(pa.Table.from_arrays([pa.array(c, pa.large_string()) for c in columns], schema=_SCHEMA))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: Any) -> Any:
        """The prompt at an index, or the set of a slice."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return Prompt(*(column[index].as_py() for column in self._columns))

    def __iter__(self) -> Iterator[Prompt]:
        for batch in self._table.to_batches(max_chunksize=4096):
            yield from map(Prompt, *(column.to_pylist() for column in batch.columns))

    @cached_property
    def ids(self) -> list[str]:
        """Content ids, ascending."""
        return self.column("id")

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all ids and labels in order, hex: equal digests, equal sets. The ids stand for the texts."""
        state = hashlib.sha256(b"cures-promptset-1\n%d\n" % len(self))
        verifier = () if "verifier" in self._unused else ("verifier",)
        for name in ("id", "source", "level", "subject", *verifier):
            for batch in self._table.select([name]).to_batches(max_chunksize=_ROW_GROUP):
                state.update("".join(f"{len(text)}:{text}" for text in batch.column(0).to_pylist()).encode())
        return state.hexdigest()

    @cached_property
    def _unused(self) -> list[str]:
        """The later columns that say nothing."""
        return [name for name in _LATER if not any(self.column(name))]

    @property
    def table(self) -> pa.Table:
        """The Arrow table, rows in order of id."""
        return self._table

    def column(self, name: str) -> list[str]:
        """One column as a list, in order of id."""
        return self._table.column(name).to_pylist()  # type: ignore[no-any-return]

    def at(self, rows: npt.ArrayLike) -> list[Prompt]:
        """The prompts of these rows, in this order; much cheaper than one by one."""
        indices = pa.array(np.asarray(rows, dtype=np.int64))
        return list(map(Prompt, *(column.take(indices).to_pylist() for column in self._columns)))

    def take(self, indices: npt.ArrayLike) -> PromptSet:
        """The set of the prompts at these indices."""
        return PromptSet(self._table.take(pa.array(np.asarray(indices, dtype=np.int64))))

    def write_parquet(self, path: Path) -> None:
        """Write the set; equal sets give equal bytes under one version of pyarrow. Not atomic."""
        version = 1 if len(self._unused) == len(_LATER) else SCHEMA_VERSION
        metadata = {"cures.promptset.schema": str(version), "cures.promptset.digest": self.digest}
        table = self._table.drop_columns(self._unused).replace_schema_metadata(metadata)
        pq.write_table(table, path, compression="zstd", row_group_size=_ROW_GROUP, store_schema=True)

    @classmethod
    def read_parquet(cls, path: Path) -> PromptSet:
        """Read what `write_parquet` wrote.

        Raises `MissingInput` where there is no file, and `CorruptArtifact` for anything that is not a prompt set of
        this schema version, or whose ids and labels do not match the recorded digest.
        """
        if not path.is_file():
            raise MissingInput(f"{path}: no such prompt set")
        try:
            table = pq.read_table(path, partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise machine_failure(error, path) or CorruptArtifact(
                f"{path}: not a readable Parquet file ({error}); make it again"
            ) from error
        metadata = table.schema.metadata or {}
        version = metadata.get(b"cures.promptset.schema", b"none").decode()
        if version not in ("1", str(SCHEMA_VERSION)):
            raise CorruptArtifact(
                f"{path}: prompt set schema {version}, this version reads 1 and {SCHEMA_VERSION}; "
                "make it with `cures data import`"
            )
        if missing := [name for name in COLUMNS if name not in table.column_names and name not in _LATER]:
            raise CorruptArtifact(f"{path}: column {missing[0]} is missing; make the file again")
        try:
            prompts = cls(table)
        except DataRejected as error:
            raise CorruptArtifact(f"{path}: {error}") from error
        except pa.ArrowException as error:
            raise machine_failure(error, path) or CorruptArtifact(f"{path}: {error}") from error
        recorded = metadata.get(b"cures.promptset.digest", b"").decode()
        if prompts.digest != recorded:
            raise CorruptArtifact(
                f"{path}: content digest {prompts.digest[:12]} is not the recorded {recorded[:12]}; make the file again"
            )
        return prompts


def _one_chunk(column: pa.ChunkedArray) -> pa.LargeStringArray:
    chunks = column.cast(pa.large_string()).chunks
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks or [pa.array([], pa.large_string())])
