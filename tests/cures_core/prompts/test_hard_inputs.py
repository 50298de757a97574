"""Inputs made to break a reader: huge, endless, changing, and wrong in ten thousand rows."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.data import write_rows
from cures_core.config.data import DataConfig
from cures_core.errors import DataRejected, TryAgain
from cures_core.prompts import load_prompts, loading, require_acceptable
from tests.cures_core.prompts.files import jsonl, loaded, reasons

GOOD = '{"problem": "How much is 2+2?", "answer": "4"}'


def peak_mib(path: Path, **options: object) -> int:
    """Peak resident memory of a process that reads a set, in MiB."""
    script = (
        "from cures_core.config.data import DataConfig\n"
        "from cures_core.prompts import load_prompts\n"
        "from cures_core.peak_memory import peak_bytes\n"
        f"load_prompts(DataConfig(path={str(path)!r}, **{options!r}))\n"
        "print(peak_bytes() >> 20)"
    )
    return int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)


def one_long_row(path: Path, megabytes: int) -> Path:
    with path.open("wb") as f:
        f.write(b'{"problem": "')
        for _ in range(megabytes):
            f.write(b"a" * (1 << 20))
        f.write(b'", "answer": "4"}\n' + GOOD.encode() + b"\n")
    return path


def test_a_row_of_100_megabytes_is_rejected_in_memory_of_one_megabyte(tmp_path: Path) -> None:
    base = peak_mib(jsonl(tmp_path / "small.jsonl", [GOOD]))
    path = one_long_row(tmp_path / "long.jsonl", 100)
    assert reasons(load_prompts(DataConfig(path=str(path)))) == {1: {"row_too_long"}}
    assert peak_mib(path) - base < 40


@pytest.mark.slow
def test_a_row_of_100_megabytes_can_be_allowed_and_is_too_long_a_problem(tmp_path: Path) -> None:
    found = load_prompts(DataConfig(path=str(one_long_row(tmp_path / "long.jsonl", 100)), max_row_bytes=1 << 28))
    assert (reasons(found), len(found.prompts)) == ({1: {"oversize_problem"}}, 1)
    assert len(found.quarantine[0].excerpt) <= 120


@pytest.mark.parametrize("name", ["endless.json", "endless.csv"])
def test_an_endless_element_takes_no_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    start = f"[{GOOD},\n{{" if name.endswith("json") else "problem,answer\nHow much is 2+2?,4\n"
    with path.open("wb") as f:
        f.write(start.encode() + b'"problem": "')
        for _ in range(64):
            f.write(b"a" * (1 << 20))
    assert peak_mib(path) - peak_mib(jsonl(tmp_path / "small.jsonl", [GOOD])) < 40
    found = load_prompts(DataConfig(path=str(path)))
    assert (len(found.prompts), found.rejected) == (1, 1)


def test_a_bomb_of_gzip_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=9) as f:
        for _ in range(200):
            f.write(b" " * (1 << 20))
    assert path.stat().st_size < 1 << 20
    assert peak_mib(path) - peak_mib(jsonl(tmp_path / "small.jsonl", [GOOD])) < 40


def test_ten_thousand_bad_rows_are_all_kept_and_the_message_stays_short(tmp_path: Path) -> None:
    rows = [f'{{"problem": "How much is {i}+1?", "answer": "{{{{{i}"}}' for i in range(10_000)]
    found = loaded(tmp_path, [*rows, GOOD])
    assert (found.rejected, len(found.quarantine), len(reasons(found))) == (10_000, 10_000, 10_000)
    with pytest.raises(DataRejected) as caught:
        require_acceptable(found, DataConfig(path="set.jsonl"))
    assert "10,000 of 10,001 rows rejected" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_beyond_the_list_of_rejected_rows_counts_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAX_QUARANTINE", 10)
    found = loaded(tmp_path, ["{"] * 50)
    assert (len(found.quarantine), found.rejected, found.counts) == (10, 50, {"truncated_json": 50})


def test_ten_thousand_flaws_in_one_row_are_one_line(tmp_path: Path) -> None:
    marks = "\\u200b" * 10_000
    found = loaded(tmp_path, [f'{{"problem": "How{marks} much is 2+2?", "answer": "4"}}'])
    assert (reasons(found), found.prompts[0].problem) == ({1: {"zero_width"}}, "How much is 2+2?")


def grown(path: Path) -> None:
    with path.open("ab") as f:
        f.write(b"{}\n")


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("change", [grown, replaced, cut])
def test_a_file_that_changes_while_it_is_read_is_read_again_later(
    change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "set.jsonl"
    write_rows(path, 3000)
    monkeypatch.setattr("cures_core.prompts.lines.CHUNK", 1 << 12)
    examine = loading.examine
    seen = 0

    def counted(*arguments: object) -> object:
        nonlocal seen
        seen += 1
        if seen == 1000:
            change(path)
        return examine(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loading, "examine", counted)
    with pytest.raises(TryAgain, match="changed while it was read") as caught:
        load_prompts(DataConfig(path=str(path)))
    assert (caught.value.exit_code, caught.value.retryable) == (75, True)


@pytest.mark.slow
def test_a_million_rows_with_a_writer_beside_them(tmp_path: Path) -> None:
    """In a process of its own: under 900 MiB with the whole set, and a growing file is noticed at the end."""
    path = tmp_path / "million.jsonl"
    write_rows(path, 1_000_000)
    assert peak_mib(path) < 900
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.2):
            grown(path)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        started = time.monotonic()
        with pytest.raises(TryAgain):
            load_prompts(DataConfig(path=str(path)))
        assert time.monotonic() - started < 300
    finally:
        stop.set()
        writer.join()
