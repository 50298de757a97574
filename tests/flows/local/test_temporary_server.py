"""The server of one command: it comes, and it goes without holding the command up."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from flows.local.temporary_server import _is_damaged, _set_damage_aside

FLOW = """
import sys
from pathlib import Path
from flows.local.temporary_server import temporary_server

with temporary_server(Path(sys.argv[1])):
    from prefect import flow
    from prefect.logging import get_run_logger

    @flow
    def talks():
        get_run_logger().info("the last words")

    talks()
print("over", flush=True)
"""


def damaged(place: str, folder: Path) -> bytes:
    """Puts a database with one page overwritten into the folder; returns its bytes."""
    database = folder / "prefect.db"
    with closing(sqlite3.connect(database)) as file, file:
        file.execute("CREATE TABLE flow_run (id TEXT PRIMARY KEY)")
        file.executemany("INSERT INTO flow_run VALUES (?)", [(f"{n:0100}",) for n in range(2000)])
    assert not _is_damaged(database)
    data = bytearray(database.read_bytes())
    start = 0 if place == "head" else len(data) // 2 // 4096 * 4096
    data[start : start + 4096] = bytes(range(256)) * 16
    database.write_bytes(data)
    return bytes(data)


@pytest.mark.parametrize("place", ["head", "pages"])
def test_a_damaged_database_is_set_aside(place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database, data = tmp_path / "prefect.db", damaged(place, tmp_path)
    for end in ("-wal", ".damaged-1"):
        (tmp_path / f"prefect.db{end}").write_bytes(b"")
    _set_damage_aside(database)
    assert caplog.messages == [
        f"{database}: damaged; it is prefect.db.damaged-2 now, and Prefect's history of runs begins anew"
    ]
    assert (tmp_path / "prefect.db.damaged-2").read_bytes() == data
    assert not list(tmp_path.glob("prefect.db-*"))
    assert not database.exists()
    _set_damage_aside(database)  # there is none


@pytest.mark.end_to_end
def test_a_command_goes_on_where_the_database_was_damaged(tmp_path: Path) -> None:
    damaged("pages", tmp_path)
    command = [sys.executable, "-c", FLOW, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "prefect.db: damaged; it is prefect.db.damaged-1 now" in done.stderr
    with closing(sqlite3.connect(tmp_path / "prefect.db")) as file:
        assert file.execute("SELECT count(*) FROM flow_run").fetchone() == (1,)


@pytest.mark.end_to_end
def test_a_command_ends_with_its_server_although_log_lines_were_waiting_to_be_sent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FLOW, str(tmp_path / "prefect")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "over\n"
        over = time.monotonic()
        try:
            _, errors = child.communicate(timeout=20)
        finally:
            child.kill()
    assert child.returncode == 0
    assert "Error logging to API" not in errors  # Prefect's words where it found no server for the last lines
    assert time.monotonic() - over < 20
