"""The server of one command: it comes, and it goes without holding the command up."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

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
