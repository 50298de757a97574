"""`python -m tests.faults.quoting_flow FOLDER`: flows in which a library quotes all secrets, on a server of their own.

Writes what the server tells of them into FOLDER/told.json. A process of its own, because Prefect's threads stay.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from prefect import flow
from prefect.settings import PREFECT_API_URL

from cures_core.errors import UnexpectedError
from flows.local.temporary_server import _send_what_waits, temporary_server
from flows.ui.logs import errors_of_ours
from tasks.prefect_api import call
from tasks.stages.stage import as_stage
from tests.faults.invariants import CANARIES


def ask() -> None:
    """What quotes them in its log and in its errors."""
    logging.getLogger("prefect.client").warning("sent %s", CANARIES)
    try:
        raise PermissionError(f"refused: {CANARIES}")
    except PermissionError as error:
        raise ValueError(f"no answer to {CANARIES}") from error


@flow(name="in a stage")
def in_a_stage() -> None:
    with errors_of_ours():
        as_stage()(ask)()


@flow(name="outside of stages")
def outside_of_stages() -> None:
    with errors_of_ours():
        ask()


def main(folder: Path) -> None:
    with temporary_server(folder / "prefect"):
        for run in (in_a_stage, outside_of_stages):
            try:
                run()
            except UnexpectedError as error:
                print(error)
        _send_what_waits()
        told = {what: call(str(PREFECT_API_URL.value()), f"/{what}/filter", {}) for what in ("flow_runs", "task_runs")}
        logs = call(str(PREFECT_API_URL.value()), "/logs/filter", {"limit": 200})
    (folder / "told.json").write_text(json.dumps({**told, "logs": logs}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
