"""Knows how a prompt file is parted into what is trained on and what is held out, with no problem on both sides."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cures_core.config.data import PromptFile
from cures_core.errors import TryAgain
from cures_core.files import write_atomic
from cures_core.prompts.checks import examine
from cures_core.prompts.columnar import whole_table
from cures_core.prompts.identity import content_id
from cures_core.prompts.lines import Snapshot
from cures_core.prompts.loading import Loaded
from cures_core.prompts.overlap import find_overlap
from cures_core.prompts.promptset import PromptSet
from cures_core.prompts.reading import COLUMNAR, Row, format_of, open_rows


class Parts(NamedTuple):
    """A set in two."""

    train: PromptSet
    held_out: PromptSet
    repeats: PromptSet
    """Prompts of neither: they are held-out ones in other words, which a run would leave out."""


def parts_of(prompts: PromptSet, number: int, seed: int) -> Parts:
    """Hold `number` prompts out. Which ones follows from `seed` and content ids alone, not from the order of a file;
    with more prompts in it, and as many more to hold out, most stay where they are."""
    ranks = [hashlib.sha256(f"cures-held-out\n{seed}\n{name}".encode()).digest() for name in prompts.ids]
    order = sorted(range(len(prompts)), key=ranks.__getitem__)
    held_out, rest = prompts.take(order[:number]), prompts.take(order[number:])
    repeats = {i for i, match in find_overlap(rest, {"held-out": held_out}) if match.leak}
    train = [i for i in range(len(rest)) if i not in repeats]
    return Parts(rest.take(train), held_out, rest.take(sorted(repeats)))


def ending_of(cfg: PromptFile, source: Path) -> str:
    """The ending of files in the format of the one at `source`; what is packed is written plain."""
    return f".{format_of(source, cfg.format)}"


def write_rows(cfg: PromptFile, source: Path, loaded: Loaded, parts: Mapping[Path, PromptSet]) -> None:
    """Write the rows of the file at `source` that these sets are made of, as they stand there, in the file's format and
    order. `loaded` is what was read of it; raises `TryAgain`, and writes nothing, where the file has changed since."""
    snapshot, kind = Snapshot.of(source), format_of(source, cfg.format)
    if snapshot.digest != loaded.file_digest:
        raise TryAgain(f"{cfg.path}: the file has changed since it was read; try again when nothing writes to it")
    lines = dict(zip(loaded.prompts.ids, loaded.lines.tolist(), strict=True))
    places = {path: {(lines[name], name) for name in prompts.ids} for path, prompts in parts.items()}
    if kind in COLUMNAR:
        table = whole_table(source, kind)
        made = {path: _columns(table, sorted(line for line, _ in wanted), kind) for path, wanted in places.items()}
    else:
        rows = _rows(cfg, source, places)
        made = {path: _TEXT[kind](rows[path]) for path in places}
    snapshot.check()
    for path, data in made.items():
        write_atomic(path, data)


def _rows(cfg: PromptFile, source: Path, places: Mapping[Path, set[tuple[int, str]]]) -> dict[Path, list[Row]]:
    """The rows on these lines with these content ids: a line of JSON may hold several rows."""
    cfg, columns, _, rows = open_rows(cfg, source)
    found: dict[Path, list[Row]] = {path: [] for path in places}
    goes_to = {place: path for path, wanted in places.items() for place in wanted}
    for row in rows:
        fields = None if row.record is None else examine(row.record, columns, cfg, row.raw)[0]
        if fields is not None:
            name = content_id(fields.problem, fields.answer, fields.turns)
            if (path := goes_to.pop((row.line, name), None)) is not None:
                found[path].append(row)
    return found


def _jsonl(rows: Sequence[Row]) -> bytes:
    return b"".join(row.raw.removeprefix(b"\xef\xbb\xbf") + b"\n" for row in rows)


def _json(rows: Sequence[Row]) -> bytes:
    return b"[\n" + b",\n".join(row.raw for row in rows) + b"\n]\n"


def _csv(rows: Sequence[Row]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0].record or {})
    writer.writerows((row.record or {}).values() for row in rows)
    return text.getvalue().encode()


_TEXT = {"jsonl": _jsonl, "json": _json, "csv": _csv}


def _columns(table: pa.Table, lines: Sequence[int], kind: str) -> bytes:
    """A file of these rows, counted from 1. What the file of a clean set says of the whole is not true of a part."""
    kept = {key: value for key, value in (table.schema.metadata or {}).items() if not key.startswith(b"cures.")}
    part = table.take(np.array(lines, np.int64) - 1).replace_schema_metadata(kept)
    out = io.BytesIO()
    if kind == "parquet":
        pq.write_table(part, out, compression="zstd")
    else:
        with pa.ipc.new_file(out, part.schema) as writer:
            writer.write_table(part)
    return out.getvalue()
