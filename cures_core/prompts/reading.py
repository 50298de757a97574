"""Knows the file formats: every one becomes a stream of rows with their place, in memory of a few rows."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cures_core.config.data import PromptFile
from cures_core.errors import ConfigError, DataRejected
from cures_core.prompts.columnar import (
    arrow_names,
    arrow_rows,
    dataset_files,
    parquet_files,
    parquet_names,
    parquet_rows,
    require_all_shards,
)
from cures_core.prompts.columns import ColumnMap, resolve_columns
from cures_core.prompts.defects import Flaw
from cures_core.prompts.json_rows import array_elements, parse_array, parse_object
from cures_core.prompts.layouts import Taken, columns_read, resolve_layout
from cures_core.prompts.lines import ByteStream, capped_lines, check_readable, opened

COLUMNAR = ("parquet", "arrow")
_PEEKED_ROWS = 100
_ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}


class Row(NamedTuple):
    """One row: where it is, its values (None where it cannot be read) and what is wrong with its form.

    `line` counts from 1. `raw` is the row's text where there is one. Rows without values and without a rejecting flaw
    (blank lines) are no rows of the set.
    """

    line: int
    record: dict[str, Any] | None
    flaws: tuple[Flaw, ...] = ()
    raw: bytes = b""
    unit: str = ""


class Opened(NamedTuple):
    """A file about to be read: the configuration with its layout's columns and rules, and how it came to be."""

    cfg: PromptFile
    columns: ColumnMap
    taken: Taken
    rows: Iterator[Row]


def open_rows(cfg: PromptFile, path: Path) -> Opened:
    """The layout and columns of the file at `path`, and its rows in file order.

    Raises `MissingInput` (no file), `ConfigError` (not readable, columns not found) or `DataRejected` (not in the named
    format); the iterator raises `DataRejected` where a file is damaged inside.
    """
    check_readable(path)
    kind = format_of(path, cfg.format)
    if not path.is_dir():
        require_all_shards([path])
    if kind in COLUMNAR:
        in_folder = dataset_files if kind == "arrow" else parquet_files
        files = in_folder(path) if path.is_dir() else [path]
        names, rows = (parquet_names, parquet_rows) if kind == "parquet" else (arrow_names, arrow_rows)
        held = names(files)
        first = itertools.islice(rows(files, columns_read(held)), _PEEKED_ROWS)
        cfg, columns, taken = _resolved(cfg, held, [record for _, record, *_ in first if record is not None])
        return Opened(cfg, columns, taken, itertools.starmap(Row, rows(files, columns.top_level)))
    text_rows = {"jsonl": _jsonl_rows, "json": _json_rows, "csv": _csv_rows}[kind](path, cfg.max_row_bytes)
    return _with_columns(cfg, text_rows)


def format_of(path: Path, named: str = "auto") -> str:
    """The format of a file: as named, or by its ending, or by its first bytes."""
    if path.is_dir():
        held = "parquet" if parquet_files(path) else "arrow"
        if named not in ("auto", held):
            raise ConfigError(f"{path}: a folder, but format is {named}; name one file in it")
        return held
    if named == "json" and _first_byte(path) == b"{":
        return "jsonl"
    if named != "auto":
        return named
    suffixes = [s.lower() for s in path.suffixes if s.lower() not in (".gz", ".zst", ".zstd")]
    if suffixes and (kind := _ENDINGS.get(suffixes[-1])):
        return kind
    with path.open("rb") as f:
        head = f.read(6)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head == b"ARROW1":
        return "arrow"
    first = _first_byte(path)
    if first in (b"[", b"{", b""):
        return "json" if first == b"[" else "jsonl"
    raise ConfigError(f"{path}: cannot tell the format; set format to jsonl, json, csv, parquet or arrow")


def _first_byte(path: Path) -> bytes:
    """First byte that is neither space nor byte order mark, after unpacking."""
    with opened(path) as stream:
        return stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]


def _with_columns(cfg: PromptFile, rows: Iterator[Row]) -> Opened:
    """Columns from the first rows: a key counts if any of them has it."""
    peeked = list(itertools.islice(rows, _PEEKED_ROWS))
    if 2 * sum(_is_array(row) for row in peeked) > len(peeked):
        peeked, rows = [_numbered(row) for row in peeked], map(_numbered, rows)
    first = [row.record for row in peeked if row.record is not None]
    names: Collection[str] = dict.fromkeys(key for record in first for key in record)
    if names:
        cfg, columns, taken = _resolved(cfg, names, first)
    else:  # nothing readable so far: every row will say why
        cfg = cfg.model_copy(update={"columns": type(cfg.columns)(), "layout": "columns"})
        cfg, columns, taken = _resolved(cfg, ("problem", "answer"), first)
        taken = replace(
            taken, why=f"none of the first {len(peeked)} rows could be read" if peeked else "it has no rows"
        )
    return Opened(cfg, columns, taken, itertools.chain(peeked, rows))


def _resolved(
    cfg: PromptFile, names: Collection[str], first: Sequence[Mapping[str, Any]]
) -> tuple[PromptFile, ColumnMap, Taken]:
    cfg, layout, why = resolve_layout(cfg, names, first)
    columns = resolve_columns(cfg, names)
    return cfg, columns, Taken.of(layout, why, cfg, columns)


def _is_array(row: Row) -> bool:
    return row.record is None and row.raw[:1] == b"[" and any(code == "not_an_object" for code, _ in row.flaws)


def _numbered(row: Row) -> Row:
    """A row that is an array as an object with the keys 0, 1, ..., as `datasets` reads such files."""
    if not _is_array(row):
        return row
    flaws = tuple(flaw for flaw in row.flaws if flaw[0] != "not_an_object")
    return row._replace(record=parse_array(row.raw), flaws=flaws)


def _jsonl_rows(path: Path, cap: int) -> Iterator[Row]:
    crlf_reported = False
    with opened(path) as stream:
        for number, (line, ended) in enumerate(capped_lines(stream, cap), 1):
            if len(line) > cap:
                yield Row(number, None, (("row_too_long", f"more than {cap:,} bytes"),), line)
                continue
            record, flaws = parse_object(line)
            if record is None and not line.strip():
                yield Row(number, None, (("blank_line", ""),))
                continue
            if not crlf_reported and line.endswith(b"\r"):
                crlf_reported, flaws = True, (*flaws, ("crlf", "the first such line"))
            if not ended:
                flaws = (*flaws, ("no_final_newline", ""))
            yield Row(number, record, flaws, line)


def _json_rows(path: Path, cap: int) -> Iterator[Row]:
    if _first_byte(path) != b"[":
        raise DataRejected(
            f"{path}: a JSON file must hold an array of objects; for one object a line set format = jsonl"
        )
    with opened(path) as stream:
        for line, element, whole in array_elements(stream, cap):
            if len(element) > cap:
                yield Row(line, None, (("row_too_long", f"more than {cap:,} bytes"),), element)
            elif not whole:
                yield Row(line, None, (("truncated_json", "the array never ends"),), element)
            else:
                record, flaws = parse_object(element)
                yield Row(line, record, flaws, element)


class _CsvLines:
    """Lines for the csv module, undecodable bytes kept as lone surrogates; notes when one had to be cut."""

    def __init__(self, stream: ByteStream, cap: int) -> None:
        self._lines, self._cap, self.cut = capped_lines(stream, cap), cap, False

    def __iter__(self) -> Iterator[str]:
        for number, (line, _) in enumerate(self._lines):
            self.cut |= len(line) > self._cap
            body = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
            yield body.decode("utf-8", "surrogateescape") + "\n"


def _csv_rows(path: Path, cap: int) -> Iterator[Row]:
    """The line of a row is the one it ends on. Fields above 131,072 characters are refused by the csv module."""
    with opened(path) as stream:
        lines = _CsvLines(stream, cap)
        reader = csv.reader(iter(lines), strict=True)
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise DataRejected(f"{path}: the header is not CSV ({error})") from error
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(reader.line_num, None, (("unreadable_row", str(error)),))
                continue
            yield _csv_row(reader.line_num, header, fields, lines.cut)
            lines.cut = False


def _csv_row(line: int, header: list[str], fields: list[str], cut: bool) -> Row:
    raw = ",".join(fields).encode("utf-8", "surrogateescape")
    if not fields:
        return Row(line, None, (("blank_line", ""),))
    if cut:
        return Row(line, None, (("row_too_long", ""),), raw)
    if len(fields) != len(header):
        return Row(line, None, (("wrong_column_count", f"{len(fields)} for {len(header)}"),), raw)
    if _undecoded(raw):
        return Row(line, None, (("invalid_utf8", ""),), raw)
    return Row(line, dict(zip(header, fields, strict=True)), (), raw)


def _undecoded(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False
