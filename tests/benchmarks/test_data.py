"""The rows of the bench are what it says: all good, all different, all counted."""

from __future__ import annotations

from pathlib import Path

from benchmarks.data import measure, write_rows


def test_every_row_made_is_read_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, 20_100)
    assert len(path.read_text().splitlines()) == 20_100
    prompts, figures = measure(path, 20_100)
    assert len(prompts) == figures["kept"] == figures["rows"] == 20_100
    assert figures["rows_per_s"] > 5_000
