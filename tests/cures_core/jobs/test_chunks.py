"""Chunks of unfinished work: what a killed job has saved is used again, unless a single byte of it has changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.events import JobEvent
from cures_core.jobs.chunks import in_chunks
from cures_core.jobs.kept import kept, sealed, unsealed
from cures_core.terms import Prompt, Request


class Silent:
    """A parent that hears nothing and asks for nothing."""

    def emit(self, event: JobEvent) -> None: ...

    def stop_if_asked(self, done: str) -> None: ...


def requests(num: int) -> list[Request]:
    return [Request(f"r{i}", Prompt(id=f"p{i}", problem="1", answer="1"), 2, 0) for i in range(num)]


class Work:
    """One row for each request; counts the chunks."""

    def __init__(self) -> None:
        self.chunks = 0

    def __call__(self, chunk: Sequence[Request]) -> list[dict[str, Any]]:
        self.chunks += 1
        return [{"id": request.prompt.id, "successes": 1234} for request in chunk]


def run(folder: Path, work: Work) -> list[dict[str, Any]]:
    parent: Any = Silent()
    return in_chunks(requests(10), 4, folder, work, parent, "prior")


def test_saved_chunks_are_used_again(tmp_path: Path) -> None:
    first, again = Work(), Work()
    rows = run(tmp_path, first)
    assert run(tmp_path, again) == rows
    assert (first.chunks, again.chunks) == (3, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"1234", b"1235", 1),
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data.partition(b"\n")[2],  # as earlier versions wrote it
        lambda data: b"\xff" + data[1:],
        lambda data: sealed([]),  # whole, but of other requests
    ],
)
def test_a_chunk_that_was_changed_between_kill_and_resume_is_made_again(tmp_path: Path, change: Any) -> None:
    rows, again = run(tmp_path, Work()), Work()
    path = sorted(tmp_path.iterdir())[1]
    damaged = change(path.read_bytes())
    path.write_bytes(damaged)
    assert run(tmp_path, again) == rows
    assert again.chunks == 1
    aside = list(tmp_path.glob("*.damaged-1"))
    assert [p.read_bytes() for p in aside] == ([] if damaged == sealed([]) else [damaged])
    assert kept(path) == rows[4:8]


rows_of = st.lists(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=8) | st.none(), max_size=3))


@given(rows_of, st.data())
def test_any_changed_byte_is_told(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    whole = sealed(rows)
    assert unsealed(whole) == rows
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place] ^= data.draw(st.integers(1, 255))
    assert unsealed(bytes(flipped)) is None
