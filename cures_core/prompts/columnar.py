"""Knows Parquet and Arrow files, and the folders that the `datasets` library saves, as streams of rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cures_core.errors import ConfigError, DataRejected
from cures_core.failures import machine_failure
from cures_core.names import check_part
from cures_core.prompts.defects import Flaw
from cures_core.prompts.lines import unpacked

BATCH_ROWS = 1024
_SHARD = re.compile(r"-(\d+)-of-(\d+)(?:-[0-9a-f]{8,})?(?=(?:\.[a-z]+){1,2}$)")
ColumnarRow = tuple[int, dict[str, Any] | None, tuple[Flaw, ...], bytes, str]


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder as sets are published in, in order of name; empty where it holds none.

    `ConfigError` where the names (train-00000-of-00002.parquet) are of several splits, or not all shards are there.
    """
    files = sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))
    splits = sorted({_SHARD.sub("", file.name).removesuffix(".parquet") for file in files})
    if len(splits) > 1:
        raise ConfigError(f"{folder}: holds several splits or sets ({', '.join(splits[:5])}); name a folder with one")
    require_all_shards(files)
    return files


def require_all_shards(files: Sequence[Path]) -> None:
    """`ConfigError` that names what is missing, unless the files are all those that their names count."""
    shards = {int(match[1]): match for file in files if (match := _SHARD.search(file.name))}
    if not shards:
        return
    counts = sorted({int(match[2]) for match in shards.values()})
    folder, one = files[0].parent, next(iter(shards.values()))
    if len(counts) > 1:
        raise ConfigError(
            f"{folder}: shards of several sets, of {' and of '.join(map(str, counts))} files; keep those of one"
        )
    if missing := [n for n in range(counts[0]) if n not in shards]:
        names = [_SHARD.sub(f"-{n:0{len(one[1])}}-of-{one[2]}", one.string) for n in missing[:5]]
        more = f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
        raise ConfigError(
            f"{files[0] if len(files) == 1 else folder}: {len(shards):,} of {counts[0]:,} shards; missing: "
            f"{', '.join(names)}{more}. Fetch them into one folder and name that, or rename a part that is wanted alone"
        )


def dataset_files(folder: Path) -> list[Path]:
    """The Arrow files of a folder written by `datasets.Dataset.save_to_disk`, in its order."""
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(p.name for p in folder.iterdir() if (p / "state.json").is_file())
        raise ConfigError(f"{folder}: holds several splits; name one: {', '.join(str(folder / s) for s in splits)}")
    state = folder / "state.json"
    if not state.is_file():
        raise ConfigError(
            f"{folder}: a folder without Parquet files or state.json (so not one that `datasets` saved); name a file"
        )
    try:
        names = [str(entry["filename"]) for entry in json.loads(state.read_bytes())["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataRejected(f"{state}: not a state file of `datasets` ({error})") from error
    files = [folder / check_part(name, str(state), DataRejected) for name in names]
    for name, file in zip(names, files, strict=True):
        if not file.is_file():
            raise DataRejected(f"{state}: names {name}, which is not in the folder")
    return files


def parquet_names(files: Sequence[Path]) -> list[str]:
    """Column names of the first file."""
    return list(_parquet(files[0]).schema_arrow.names)


def parquet_rows(files: Sequence[Path], names: Sequence[str]) -> Iterator[ColumnarRow]:
    """Rows as (row number from 1, values, flaws, b"", unit); only the named columns are read."""
    number = 0
    for path in files:
        file = _parquet(path)
        for group in range(file.num_row_groups):
            unit = f"row group {group}, row "
            try:
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(names)):
                    yield from _rows(batch, number, unit)
                    number += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                raise machine_failure(error, path) or DataRejected(
                    f"{path}: row group {group} is damaged ({error}); fetch the file again"
                ) from error


def arrow_names(files: Sequence[Path]) -> list[str]:
    """Column names of the first file."""
    schema, _ = _arrow(files[0])
    return list(schema.names)


def arrow_rows(files: Sequence[Path], names: Sequence[str]) -> Iterator[ColumnarRow]:
    """Rows of Arrow IPC files or streams, as `parquet_rows`."""
    number = 0
    for path in files:
        schema, batches = _arrow(path)
        if missing := [name for name in names if name not in schema.names]:
            raise DataRejected(f"{path}: no column {missing[0]}, which the first file has")
        try:
            for large in batches:
                for start in range(0, large.num_rows, BATCH_ROWS):
                    batch = large.slice(start, BATCH_ROWS).select(list(names))
                    yield from _rows(batch, number, "row ")
                    number += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise machine_failure(error, path) or DataRejected(
                f"{path}: damaged after row {number} ({error}); fetch the file again"
            ) from error


def whole_table(path: Path, kind: str) -> pa.Table:
    """All columns of a Parquet or Arrow (`kind`) file, or of a folder of them, rows in the order they are counted in.

    Raises `DataRejected` where something in it cannot be read.
    """
    in_folder = parquet_files if kind == "parquet" else dataset_files
    tables = []
    for file in in_folder(path) if path.is_dir() else [path]:
        try:
            if kind == "parquet":
                tables.append(_parquet(file).read())
            else:
                schema, batches = _arrow(file)
                tables.append(pa.Table.from_batches(batches, schema))
        except (pa.ArrowException, OSError) as error:
            raise machine_failure(error, file) or DataRejected(
                f"{file}: is damaged ({error}); fetch it again"
            ) from error
    return pa.concat_tables(tables, promote_options="permissive")


def _rows(batch: pa.RecordBatch, before: int, unit: str) -> Iterator[ColumnarRow]:
    names = batch.schema.names
    try:
        columns = [column.to_pylist() for column in batch.columns]
    except UnicodeDecodeError:
        yield from _rows_one_by_one(batch, before, unit)
        return
    for i, row in enumerate(zip(*columns, strict=True), before + 1):
        yield i, dict(zip(names, row, strict=True)), (), b"", unit


def _rows_one_by_one(batch: pa.RecordBatch, before: int, unit: str) -> Iterator[ColumnarRow]:
    """The same for a batch with text that is not UTF-8: only the damaged rows are lost."""
    for i in range(batch.num_rows):
        try:
            record = {name: batch.column(name)[i].as_py() for name in batch.schema.names}
        except UnicodeDecodeError as error:
            yield before + i + 1, None, (("invalid_utf8", str(error)[:80]),), b"", unit
        else:
            yield before + i + 1, record, (), b"", unit


def _parquet(path: Path) -> Any:
    try:
        return pq.ParquetFile(unpacked(path) or path)
    except (pa.ArrowException, OSError) as error:
        raise machine_failure(error, path) or DataRejected(f"{path}: not a readable Parquet file ({error})") from error


def _arrow(path: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema and batches of an IPC file or stream; memory-mapped, so read as it is used."""
    try:
        whole = unpacked(path)
        source = pa.memory_map(str(path)) if whole is None else pa.PythonFile(whole, mode="r")
        if source.read(6) == b"ARROW1":
            file = pa.ipc.open_file(source)
            return file.schema, (file.get_batch(i) for i in range(file.num_record_batches))
        source.seek(0)
        stream = pa.ipc.open_stream(source)
        return stream.schema, iter(stream)
    except (pa.ArrowException, OSError) as error:
        raise machine_failure(error, path) or DataRejected(f"{path}: not a readable Arrow file ({error})") from error
