"""The server of one command: it comes, and it goes without holding the command up."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("place", ["head", "pages"])
def test_a_damaged_database_is_set_aside_and_the_command_goes_on(place: str, tmp_path: Path) -> None:
    database = tmp_path / "prefect.db"
    with closing(sqlite3.connect(database)) as file, file:
        file.execute("CREATE TABLE flow_run (id TEXT PRIMARY KEY)")
        file.executemany("INSERT INTO flow_run VALUES (?)", [(f"{n:0100}",) for n in range(2000)])
    data = bytearray(database.read_bytes())
    start = 0 if place == "head" else len(data) // 2 // 4096 * 4096
    data[start : start + 4096] = bytes(range(256)) * 16
    database.write_bytes(data)
    for end in ("-wal", ".damaged-1"):
        (tmp_path / f"prefect.db{end}").write_bytes(b"")
    command = [sys.executable, "-c", FLOW, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{database}: damaged; it is prefect.db.damaged-2 now" in done.stderr
    assert (tmp_path / "prefect.db.damaged-2").read_bytes() == data
    with closing(sqlite3.connect(database)) as file:
        assert file.execute("SELECT count(*) FROM flow_run").fetchone() == (1,)


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
