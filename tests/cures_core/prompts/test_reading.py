from __future__ import annotations

import gzip
import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.config.data import ColumnsConfig, DataConfig
from cures_core.errors import ConfigError, CuresError, DataRejected, MissingInput, TryAgain
from cures_core.prompts import json_rows, lines, load_prompts
from cures_core.prompts.columns import apply_answer_rule, boxed
from cures_core.prompts.json_rows import array_elements, parse_object
from cures_core.prompts.lines import Snapshot, capped_lines
from cures_core.prompts.reading import open_rows
from tests.cures_core.prompts.files import jsonl, loaded, reasons

ROWS = [{"problem": f"How much is {i} and {i + 1}, Ann?", "answer": str(2 * i + 1), "source": "s"} for i in range(30)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The same rows in the format of the file's ending."""
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = pa.Table.from_pylist(rows)
    name = path.name
    if name.endswith(".jsonl"):
        path.write_bytes(text)
    elif name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress(text, mtime=0))
    elif name.endswith(".jsonl.zst"):
        path.write_bytes(pa.Codec("zstd").compress(text).to_pybytes())
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows, indent=2))
    elif name.endswith(".csv"):
        quoted = [",".join('"' + row[k].replace('"', '""') + '"' for k in rows[0]) for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *quoted]) + "\n")
    elif name.endswith(".parquet"):
        pq.write_table(table, path, row_group_size=7)
    elif name.endswith((".parquet.gz", ".arrow.zst")):
        plain = write(path.with_name(name.rpartition(".")[0]), rows).read_bytes()
        path.write_bytes(
            gzip.compress(plain, mtime=0) if name.endswith("gz") else pa.Codec("zstd").compress(plain).to_pybytes()
        )
    elif name == "shards":
        (path / "data").mkdir(parents=True)
        for k in range(2):
            pq.write_table(table.slice(20 * k, 20), path / f"data/train-0000{k}-of-00002.parquet", row_group_size=7)
    elif name.endswith(".arrow"):
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    else:
        path.mkdir()
        with pa.ipc.new_stream(path / "data-0.arrow", table.schema) as writer:
            writer.write_table(table)
        (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-0.arrow"}]}))
    return path


COLUMNAR = ("a.parquet", "a.parquet.gz", "a.arrow", "a.arrow.zst", "saved", "shards")
FORMATS = ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.csv", *COLUMNAR]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_set(name: str, tmp_path: Path) -> None:
    expected = loaded(tmp_path, ROWS).prompts
    result = load_prompts(DataConfig(path=str(write(tmp_path / name, ROWS))))
    assert result.prompts.digest == expected.digest
    assert (result.rows_read, result.rejected, result.counts) == (30, 0, {})


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_places_a_bad_row(name: str, tmp_path: Path) -> None:
    rows = [*ROWS[:9], {**ROWS[9], "answer": ""}, *ROWS[10:]]
    result = load_prompts(DataConfig(path=str(write(tmp_path / name, rows))))
    (defect,) = result.quarantine
    line = {"a.json": 47, "a.csv": 11}.get(name, 10)  # an element takes 5 lines; CSV has a header
    assert (defect.line, defect.reason) == (line, "empty_answer")
    assert ("row 10" in defect.place) == (name in COLUMNAR)


def test_a_format_can_be_named_against_the_ending(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes(jsonl(tmp_path / "x.jsonl", ROWS).read_bytes())
    assert len(load_prompts(DataConfig(path=str(path))).prompts) == 30  # by its first byte
    assert len(load_prompts(DataConfig(path=str(path), format="jsonl")).prompts) == 30
    with pytest.raises(DataRejected, match=r"array of objects|not a readable Parquet"):
        load_prompts(DataConfig(path=str(path), format="parquet"))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: None, MissingInput, "no such file"),
        (lambda p: p.symlink_to(p), ConfigError, "leads back to itself"),
        (lambda p: os.mkfifo(p), ConfigError, "neither a file nor a folder"),
        (lambda p: p.mkdir(), ConfigError, r"without Parquet files or state\.json"),
        (lambda p: p.write_bytes("{}".encode("utf-16")), DataRejected, "UTF-16"),
        (lambda p: p.write_bytes(b"PK\x03\x04zip"), DataRejected, "zip archive"),
        (lambda p: p.write_bytes(gzip.compress(b"x" * 99)[:-9]), DataRejected, "damaged or cut archive"),
    ],
)
def test_what_cannot_be_read_is_said(make: Any, error: type[CuresError], message: str, tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    make(path)
    with pytest.raises(error, match=message):
        load_prompts(DataConfig(path=str(path)))


def test_a_missing_file_is_answered_with_its_neighbours(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(MissingInput, match=r"holds train\.jsonl"):
        load_prompts(DataConfig(path=str(tmp_path / "trian.jsonl")))


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "set.jsonl", ROWS)
    snapshot = Snapshot.of(path)
    snapshot.check()
    with path.open("ab") as f:
        f.write(b"{}\n")
    with pytest.raises(TryAgain, match="changed while it was read"):
        snapshot.check()


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ROWS * 50)
    data = bytearray(path.read_bytes())
    data[4:200] = os.urandom(196)
    path.write_bytes(data)
    with pytest.raises(DataRejected, match=r"row group|not a readable"):
        load_prompts(DataConfig(path=str(path)))


def test_splits_of_a_saved_dataset_are_listed(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all/dataset_dict.json").write_text("{}")
    write(tmp_path / "all/train", ROWS)
    with pytest.raises(ConfigError, match=r"several splits; name one: .*all/train"):
        load_prompts(DataConfig(path=str(tmp_path / "all")))


def test_splits_among_parquet_files_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "shards", ROWS)
    write(tmp_path / "shards/data/test-00000-of-00001.parquet", ROWS)
    with pytest.raises(ConfigError, match=r"several splits or sets \(test, train\)"):
        load_prompts(DataConfig(path=str(tmp_path / "shards")))


@pytest.mark.parametrize("name", ["{}-00000-of-00002.parquet", "{}-00000-of-00002-0a1b2c3d4e5f.parquet"])
def test_shards_that_are_missing_are_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "set/data"
    folder.mkdir(parents=True)
    first = write(folder / name.format("train"), ROWS)
    for path in (tmp_path / "set", folder, first):
        with pytest.raises(ConfigError, match=r"1 of 2 shards; missing: train-00001-of-00002\.parquet\. Fetch"):
            load_prompts(DataConfig(path=str(path)))
    write(
        folder / name.format("train").replace("-00000-", "-00001-"),
        [{**r, "problem": f"{r['problem']} B"} for r in ROWS],
    )
    assert len(load_prompts(DataConfig(path=str(tmp_path / "set"))).prompts) == 2 * len(ROWS)
    write(folder / "train-00002-of-00003.parquet", ROWS)
    with pytest.raises(ConfigError, match="shards of several sets, of 2 and of 3 files"):
        load_prompts(DataConfig(path=str(tmp_path / "set")))


def test_the_count_of_shards_is_checked_for_every_format(tmp_path: Path) -> None:
    path = write(tmp_path / "train-00003-of-00009.jsonl", ROWS)
    with pytest.raises(ConfigError, match=r"1 of 9 shards; missing: train-00000-of-00009\.jsonl,.* and 3 more"):
        load_prompts(DataConfig(path=str(path)))


def test_a_saved_dataset_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    folder = write(tmp_path / "saved", ROWS)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../secret.arrow"}]}))
    with pytest.raises(DataRejected, match="holds a slash"):
        load_prompts(DataConfig(path=str(folder)))


# columns


def test_columns_are_found_under_their_usual_names(tmp_path: Path) -> None:
    rows = [{"question": "How much is 2+2?", "ground_truth": "4", "data_source": "web", "difficulty": 2, "type": "sum"}]
    (prompt,) = loaded(tmp_path, rows).prompts
    assert (prompt.problem, prompt.answer, prompt.source, prompt.level, prompt.subject) == (
        "How much is 2+2?",
        "4",
        "web",
        "2",
        "sum",
    )


def test_columns_can_be_named_and_stepped_into(tmp_path: Path) -> None:
    rows = [{"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How much is 2+2?"}],
             "reward_model": {"ground_truth": "4"}}]  # fmt: skip
    columns = ColumnsConfig(problem="prompt", answer="reward_model.ground_truth")
    for name in ("a.jsonl", "a.parquet"):
        cfg = DataConfig(path=str(write(tmp_path / name, rows)), columns=columns, problem_rule="last_user")
        (prompt,) = load_prompts(cfg).prompts
        assert (prompt.problem, prompt.answer) == ("How much is 2+2?", "4")
        assert list(load_prompts(DataConfig(path=cfg.path, problem_rule="last_user")).prompts) == [
            prompt
        ]  # usual names


def test_missing_columns_are_answered_with_those_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no answer column .*the file has problem, reply.*columns\.answer"):
        loaded(tmp_path, [{"problem": "p", "reply": "4"}])
    with pytest.raises(ConfigError, match=r"no column 'gold' for columns\.answer; the file has answer, problem"):
        loaded(tmp_path, [{"problem": "p", "answer": "4"}], columns=ColumnsConfig(answer="gold"))


def test_a_column_may_be_missing_from_the_first_rows(tmp_path: Path) -> None:
    result = loaded(tmp_path, [{"problem": "How much is 1+1?"}, {"problem": "How much is 2+2?", "answer": "4"}])
    assert reasons(result) == {1: {"missing_answer"}}


def test_answer_rules(tmp_path: Path) -> None:
    assert apply_answer_rule("gsm8k", "2*600=1200\n#### 1,200") == "1200"
    assert apply_answer_rule("gsm8k", "no mark") is None
    assert apply_answer_rule("boxed", "so \\boxed{1}, no: $\\boxed{\\frac{1}{\\sqrt{2}}}$.") == "\\frac{1}{\\sqrt{2}}"
    assert apply_answer_rule("boxed", "\\boxed{1") is None
    assert boxed("\\boxed 5 and \\boxed{\\{1\\}}") == ["5", "\\{1\\}"]
    rows = [{"problem": "How many eggs?", "solution": "so \\boxed{\\frac12}"}]
    assert loaded(tmp_path, rows, answer_rule="boxed").prompts[0].answer == "\\frac12"
    assert reasons(loaded(tmp_path, rows, answer_rule="gsm8k")) == {1: {"answer_rule_found_nothing"}}


# lines


@given(st.binary(max_size=300).map(lambda b: b.replace(b"x", b"\n")), st.integers(1, 40), st.integers(1, 17))
def test_lines_are_those_of_split_cut_at_the_cap(data: bytes, cap: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "CHUNK", chunk)
        got = list(capped_lines(io.BytesIO(data), cap))
    expected = data.split(b"\n")
    last = [(expected[-1], False)] if expected[-1] else []
    assert got == [(line[: cap + 1], ended) for line, ended in [*((part, True) for part in expected[:-1]), *last]]


def test_an_endless_line_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "endless.jsonl"
    with path.open("wb") as f:
        f.write(b'{"problem": "')
        for _ in range(64):
            f.write(b"a" * (1 << 20))
        f.write(b'\n{"problem": "How much is 2+2?", "answer": "4"}\n')
    tracemalloc.start()
    try:
        result = load_prompts(DataConfig(path=str(path), max_row_bytes=1 << 16))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reasons(result) == {1: {"row_too_long"}}
    assert len(result.prompts) == 1
    assert peak < 12 << 20


# JSON

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), JSON, max_size=3), max_size=5),
       st.integers(1, 9), st.sampled_from([None, 1]))  # fmt: skip
def test_array_elements_are_those_of_the_parser(rows: list[dict[str, Any]], chunk: int, indent: int | None) -> None:
    text = json.dumps(rows, ensure_ascii=False, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "CHUNK", chunk)
        found = list(array_elements(io.BytesIO(text), 10_000))
    assert [json.loads(raw) for _, raw, _ in found] == rows
    for line, raw, whole in found:
        assert whole
        assert raw.split(b"\n")[0] in text.split(b"\n")[line - 1]


def test_an_array_that_never_ends_is_said(tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    path.write_text('[{"problem": "How much is 2+2?", "answer": "4"},\n {"problem": "How')
    result = load_prompts(DataConfig(path=str(path)))
    assert (len(result.prompts), reasons(result)) == (1, {2: {"truncated_json"}})


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), JSON, max_size=4))
def test_good_objects_parse_without_flaws(row: dict[str, Any]) -> None:
    assert parse_object(json.dumps(row).encode()) == (row, ())


@pytest.mark.parametrize(
    "raw",
    [
        '{"answer": "1", "answer": "2"}',
        '{"answer" : "1", "answer": "2"}',
        '{"x": {"a": 1}, "answer": "1", "answer": "2"}',
        '{"x": "a\\":b", "answer": "1", "answer": "2"}',
    ],
)
def test_a_repeated_key_is_found_however_it_is_written(raw: str) -> None:
    assert parse_object(raw.encode()) == (None, (("duplicate_key", "answer"),))


def test_a_key_may_recur_at_another_depth() -> None:
    record, flaws = parse_object(b'{"a": {"b": 1}, "b": "x\\": y"}')
    assert (record, flaws) == ({"a": {"b": 1}, "b": 'x": y'}, ())


@pytest.mark.parametrize("depth", [900, 1010, 5000, 100_000])
def test_deep_nesting_is_survived(depth: int) -> None:
    record, flaws = parse_object(b'{"a":' + b"[" * depth + b"]" * depth + b"}")
    assert record is not None or flaws[0][0] == "invalid_json"


@given(st.binary(max_size=120))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "CHUNK", 32)
        for line, _ in capped_lines(io.BytesIO(data), 64):
            record, flaws = parse_object(line)
            assert record is not None or flaws


@pytest.mark.parametrize(
    "text", ["12345678901234567890123", "0.1", "0.30000000000000004", "1e400", "-7", "3.0", "2.50"]
)
def test_number_answers_keep_their_spelling(text: str, tmp_path: Path) -> None:
    result = loaded(tmp_path, [f'{{"problem": "How much is it?", "answer": {text}}}'])
    assert result.prompts[0].answer == text.removesuffix(".0")
    assert reasons(result) == {1: {"number_answer"}}


# CSV


def test_csv_defects_have_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"\xef\xbb\xbfproblem,answer\r\n"
        b'"How much, in all,\nis 2+2?",4\r\n'
        b"How much is 3+3?,6,extra\r\n"
        b"\r\n"
        b"How much is caf\xe9?,7\r\n"
        b'"How much" is 4+4?,8\r\n'
        b"How much is 5+5?,10\r\n"
    )
    result = load_prompts(DataConfig(path=str(path)))
    assert [p.answer for p in sorted(result.prompts, key=lambda p: p.answer)] == ["10", "4"]
    assert reasons(result) == {
        4: {"wrong_column_count"},
        5: {"blank_line"},
        6: {"invalid_utf8"},
        7: {"unreadable_row"},
    }


def test_a_long_csv_line_is_not_cut_silently(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("problem,answer\nHow much is " + "9" * 200 + ",5\nHow much is 2+2?,4\n")
    result = load_prompts(DataConfig(path=str(path), max_row_bytes=100))
    assert (reasons(result), [p.answer for p in result.prompts]) == ({2: {"row_too_long"}}, ["4"])


def test_parquet_text_that_is_not_utf8_loses_only_its_row(tmp_path: Path) -> None:
    bad = pa.array([b"How much is 1+1?", b"\xff\xfe", b"How much is 2+2?"]).view(pa.string())
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"problem": bad, "answer": ["2", "3", "4"]}), path)
    result = load_prompts(DataConfig(path=str(path)))
    assert (len(result.prompts), reasons(result)) == (2, {2: {"invalid_utf8"}})


def test_only_the_columns_in_use_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"problem": ["p q"], "answer": ["1"], "blob": [b"x" * 100]}), path)
    rows = open_rows(DataConfig(path=str(path)), path).rows
    assert [row.record for row in rows] == [{"problem": "p q", "answer": "1"}]
