"""What is kept of a rollout, on disk."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.errors import CorruptArtifact
from cures_core.kept_rollouts.table import KeptRollouts, from_line, read_rollouts, to_line, write_rollouts
from tests.cures_core.kept_rollouts.rollouts import row

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS, TEXTS, st.none() | st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 10**9))
def test_a_line_says_what_the_row_said(problem: str, completion: str, reward: float | None, tokens: int) -> None:
    kept = row(problem=problem, completion=completion, reward=reward, tokens=tokens)
    line = to_line(kept)
    assert line.count(b"\n") == 1
    assert from_line(line) == kept


def test_a_file_says_what_the_rows_said_in_the_same_bytes(tmp_path: Path) -> None:
    rows = [row(step=i, advantage=None if i % 2 else 0.25, completion="\x1b[31m\u202e" * i) for i in range(5)]
    for name in ("a", "b"):
        write_rollouts(rows, tmp_path / name, "mine:hook 0123")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_rollouts(tmp_path / "a") == KeptRollouts(tuple(rows), "mine:hook 0123")
    write_rollouts([], tmp_path / "none")
    assert read_rollouts(tmp_path / "none") == KeptRollouts((), "")


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    write_rollouts([row()], tmp_path / "whole")
    (tmp_path / "half").write_bytes((tmp_path / "whole").read_bytes()[:100])
    table = pq.read_table(tmp_path / "whole")
    pq.write_table(table.replace_schema_metadata({b"cures.rollouts.schema": b"9"}), tmp_path / "later")
    pq.write_table(table.drop_columns(["rule"]), tmp_path / "less")
    for name, words in (("half", "not a readable Parquet"), ("later", "rollouts of schema 9"), ("less", "schema 1")):
        with pytest.raises(CorruptArtifact, match=words):
            read_rollouts(tmp_path / name)
