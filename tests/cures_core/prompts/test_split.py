"""A file in two parts: which prompts are held out, that no problem is on both sides, and that rows stay as they are."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cures_core.config.data import DataConfig
from cures_core.errors import TryAgain
from cures_core.prompts import PromptSet, load_prompts, make_prompt
from cures_core.prompts.canonical import canonical
from cures_core.prompts.overlap import find_overlap
from cures_core.prompts.split import ending_of, parts_of, write_rows

Rows = list[dict[str, str]]
ROWS: Rows = [
    {"question": f"Ann has {i} eggs and buys {i} more. How many now?", "answer": str(2 * i), "note": f'"{i}", kept'}
    for i in range(20)
]


def of(numbers: range) -> PromptSet:
    return PromptSet.of(make_prompt(f"What is {i} plus {i % 7}?", str(i + i % 7)) for i in numbers)


def test_which_ones_follows_from_content_and_seed() -> None:
    held = [set(parts_of(of(range(200)), 40, seed).held_out.ids) for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]
    assert [len(ids) for ids in held] == [40, 40, 40]
    more = set(parts_of(of(range(220)), 44, 0).held_out.ids)
    assert len(held[0] & more) > 30  # by chance 8 would be


def test_the_same_problem_is_never_on_both_sides() -> None:
    """Where case or punctuation may carry meaning, both stay in the set; and a text may hold another."""
    long = "A train that leaves at nine goes sixty miles an hour for four hours and then stops. How far did it go?"
    pairs = [(f"How many eggs has {name}, in all?", f"how many eggs has {name} in all") for name in ("Ann", "Bob")]
    prompts = PromptSet.of(
        [
            *of(range(10)),
            *(make_prompt(text, str(i)) for pair in pairs for i, text in enumerate(pair)),
            make_prompt(long, "240"),
            make_prompt(f"Think well, and then write the number alone. {long}", "240"),
        ]
    )
    left_out = 0
    for seed in range(20):
        parts = parts_of(prompts, 5, seed)
        assert sorted([*parts.train.ids, *parts.held_out.ids, *parts.repeats.ids]) == prompts.ids
        assert len(parts.held_out) == 5
        forms = [{canonical(prompt.problem) for prompt in part} for part in (parts.train, parts.held_out)]
        assert not forms[0] & forms[1]
        assert not [match for _, match in find_overlap(parts.train, {"own": parts.held_out}) if match.leak]
        left_out += len(parts.repeats)
    assert left_out


def as_csv(rows: Rows) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_columns(rows: Rows, write: Callable[[pa.Table, Any], object]) -> bytes:
    out = io.BytesIO()
    write(pa.Table.from_pylist(rows).replace_schema_metadata({"cures.promptset.digest": "d", "made by": "us"}), out)
    return out.getvalue()


def as_arrow(table: pa.Table, out: Any) -> None:
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Rows], bytes]] = {
    "set.jsonl": lambda rows: b"\xef\xbb\xbf" + "".join(json.dumps(row) + "\n" for row in rows).encode(),
    "set.jsonl.gz": lambda rows: gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()),
    "set.json": lambda rows: json.dumps(rows).encode(),  # all on one line
    "set.csv": as_csv,
    "set.parquet": lambda rows: as_columns(rows, pq.write_table),
    "set.arrow": lambda rows: as_columns(rows, as_arrow),
}
READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()],
    ".json": lambda path: json.loads(path.read_bytes()),
    ".csv": lambda path: list(csv.DictReader(path.open(newline=""))),
    ".parquet": lambda path: pq.read_table(path).to_pylist(),
    ".arrow": lambda path: pa.ipc.open_file(path).read_all().to_pylist(),
}


@pytest.mark.parametrize("name", WRITERS)
def test_rows_stay_as_they_are_in_their_format_and_order(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(WRITERS[name]([*ROWS, ROWS[0], {**ROWS[1], "question": ""}]))  # a copy, and one without a problem
    cfg = DataConfig(path=str(path))
    loaded, ending = load_prompts(cfg), ending_of(cfg, path)
    parts = parts_of(loaded.prompts, 5, 0)
    files = {tmp_path / f"{side}{ending}": part for side, part in (("train", parts.train), ("own", parts.held_out))}
    write_rows(cfg, path, loaded, files)
    read = [READERS[ending](file) for file in files]
    assert [len(rows) for rows in read] == [15, 5]
    for rows in read:
        assert rows == [row for row in ROWS if row in rows]
    assert sorted(row["note"] for rows in read for row in rows) == sorted(row["note"] for row in ROWS)
    assert [load_prompts(DataConfig(path=str(file))).prompts.ids for file in files] == [p.ids for p in files.values()]
    if ending == ".parquet":
        metadata = pq.read_schema(next(iter(files))).metadata
        assert metadata == {b"made by": b"us"}  # no digest of the whole set


def test_shards_are_one_set(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for n, rows in enumerate((ROWS[:12], ROWS[12:])):
        (folder / f"train-{n:05d}-of-00002.parquet").write_bytes(as_columns(rows, pq.write_table))
    cfg = DataConfig(path=str(folder))
    loaded = load_prompts(cfg)
    parts = parts_of(loaded.prompts, 5, 0)
    out = tmp_path / "own.parquet"
    write_rows(cfg, folder, loaded, {out: parts.held_out})
    assert load_prompts(DataConfig(path=str(out))).prompts.ids == parts.held_out.ids


@pytest.mark.parametrize("name", ["set.jsonl", "set.parquet"])
def test_a_file_that_changes_meanwhile_is_told(name: str, tmp_path: Path) -> None:
    path, out = tmp_path / name, tmp_path / f"own-{name}"
    path.write_bytes(WRITERS[name](ROWS))
    cfg = DataConfig(path=str(path))
    loaded = load_prompts(cfg)
    path.write_bytes(WRITERS[name](ROWS[::-1]))
    with pytest.raises(TryAgain, match="the file has changed since it was read"):
        write_rows(cfg, path, loaded, {out: loaded.prompts})
    assert not out.exists()
