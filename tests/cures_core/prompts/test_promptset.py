from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cures_core.errors import CorruptArtifact, DataRejected, MissingInput
from cures_core.prompts import PromptSet, make_prompt
from cures_core.prompts.promptset import COLUMNS
from cures_core.terms import Prompt

PROMPTS = [
    make_prompt("What is 1+1?", "2", "a", "1", "sums"),
    make_prompt("What is 2+2?", "4", "a", "2"),
    make_prompt("Wie groß ist $x$?", "x", "b"),
]


def test_reads_like_a_sequence_in_order_of_id() -> None:
    prompts = PromptSet.of(PROMPTS)
    expected = sorted(PROMPTS, key=lambda p: p.id)
    assert list(prompts) == expected
    assert [prompts[i] for i in range(len(prompts))] == expected
    assert prompts[-1] == expected[-1]
    assert prompts.ids == [p.id for p in expected]
    assert list(prompts[1:]) == expected[1:]
    assert list(prompts.take([2, 0])) == [expected[0], expected[2]]
    assert prompts.at([2, 0, 2]) == [expected[2], expected[0], expected[2]]
    assert prompts.at([]) == []
    with pytest.raises(IndexError):
        prompts[3]


def test_an_id_may_occur_once() -> None:
    with pytest.raises(DataRejected, match=r"occurs twice"):
        PromptSet.of([PROMPTS[0], PROMPTS[1], PROMPTS[0]])


@given(st.permutations(PROMPTS))
def test_order_of_rows_means_nothing(rows: list[Prompt]) -> None:
    assert PromptSet.of(rows).digest == PromptSet.of(PROMPTS).digest


@pytest.mark.parametrize("field", ["problem", "answer", "source", "level", "subject"])
def test_every_field_is_in_the_digest(field: str) -> None:
    row = {"problem": "p", "answer": "1", "source": "s", "level": "2", "subject": "t"}
    other = PromptSet.of([make_prompt(**{**row, field: "changed"})])
    assert other.digest != PromptSet.of([make_prompt(**row)]).digest


def test_labels_cannot_run_into_each_other() -> None:
    first, second = sorted(("p", "q"), key=lambda text: make_prompt(text, "1").id)

    def digest(one: str, two: str) -> str:
        return PromptSet.of([make_prompt(first, "1", source=one), make_prompt(second, "1", source=two)]).digest

    assert digest("xy", "z") != digest("x", "yz")


TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=20))
def test_survives_the_disk(rows: list[tuple[str, str, str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    prompts = PromptSet.of({(p := make_prompt(a, b, c)).id: p for a, b, c in rows}.values())
    path = tmp_path_factory.mktemp("set") / "set.parquet"
    prompts.write_parquet(path)
    again = PromptSet.read_parquet(path)
    assert list(again) == list(prompts)
    assert again.digest == prompts.digest


def test_equal_sets_give_equal_bytes(tmp_path: Path) -> None:
    PromptSet.of(PROMPTS).write_parquet(tmp_path / "a.parquet")
    PromptSet.of(PROMPTS[::-1]).write_parquet(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_nulls_are_refused() -> None:
    table = pa.table(
        {name: pa.array(["x"], pa.large_string()) for name in ("id", "problem", "answer", "source", "level")}
    )
    with pytest.raises(DataRejected, match="column subject of a prompt set holds nulls"):
        PromptSet(table.append_column("subject", pa.array([None], pa.large_string())))


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"none\.parquet: no such prompt set"):
        PromptSet.read_parquet(tmp_path / "none.parquet")


def test_other_parquet_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"problem": ["p"]}), path)
    with pytest.raises(CorruptArtifact, match=r"schema none.*cures data import"):
        PromptSet.read_parquet(path)
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(CorruptArtifact, match="not a readable Parquet file"):
        PromptSet.read_parquet(path)


def rewritten(path: Path, column: str, values: list[str], version: bytes = b"1") -> None:
    """The same file with one column changed and its metadata kept."""
    table = pq.read_table(path)
    metadata = dict(table.schema.metadata) | {b"cures.promptset.schema": version}
    table = table.set_column(table.column_names.index(column), column, pa.array(values, pa.large_string()))
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_changed_labels_do_not_pass_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    PromptSet.of(PROMPTS).write_parquet(path)
    rewritten(path, "level", ["9", "9", "9"])
    with pytest.raises(CorruptArtifact, match="content digest"):
        PromptSet.read_parquet(path)


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    PromptSet.of(PROMPTS).write_parquet(path)
    rewritten(path, "level", ["1", "2", ""], version=b"3")
    with pytest.raises(CorruptArtifact, match="schema 3, this version reads 1"):
        PromptSet.read_parquet(path)


def test_repeated_ids_on_disk_are_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    PromptSet.of(PROMPTS).write_parquet(path)
    rewritten(path, "id", ["same"] * 3)
    with pytest.raises(CorruptArtifact, match="occurs twice"):
        PromptSet.read_parquet(path)


def test_a_set_in_which_no_row_names_a_verifier_is_as_it_always_was(tmp_path: Path) -> None:
    """File and digest of six columns: what was made before the column of verifiers stays what it is."""
    plain = PromptSet.of([make_prompt("a", "1", source="s"), make_prompt("b", "2", level="3")])
    plain.write_parquet(tmp_path / "plain.parquet")
    assert pq.read_table(tmp_path / "plain.parquet").column_names == list(COLUMNS[:6])
    assert plain.digest == "26b80237b136187b06d602da36d9d6c82b9319806fa5239c1515f93603032c98"
    read = PromptSet.read_parquet(tmp_path / "plain.parquet")
    assert (list(read), read.column("verifier")) == (list(plain), ["", ""])


def test_a_row_s_verifier_is_part_of_the_set(tmp_path: Path) -> None:
    plain = make_prompt("a", "1", source="s")
    named = PromptSet.of([replace(plain, verifier="judge")])
    assert named.digest != PromptSet.of([plain]).digest != PromptSet.of([replace(plain, source="judge")]).digest
    named.write_parquet(tmp_path / "named.parquet")
    assert list(PromptSet.read_parquet(tmp_path / "named.parquet")) == list(named)
