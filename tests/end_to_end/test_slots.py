"""Runs that would hold their slot of the queue for ever, or end as what they are not, on a real server."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import tomllib
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from cures_core.config.loading import load_config
from flows.local import deploying
from flows.local.processes import process_id, stop_process
from flows.local.services import service_environment, start_postgres
from flows.local.stack import Stack, start
from tasks.ci.announce import announce, runs_of
from tests.end_to_end.pipeline import PROFILE, PROJECT, write_profile
from tests.end_to_end.processes import kill_tree, wait_for_pause
from tests.end_to_end.stack import call, ended, running_stack, tail, trigger, wait_for

pytestmark = pytest.mark.end_to_end

PATIENCE_S = 60
"""Of the automations in these tests: longer than a run takes to begin on a busy machine."""
LATE_EXIT = """
import atexit, os, time
if os.environ.get("PREFECT__FLOW_RUN_ID"):
    atexit.register(lambda: (time.sleep({seconds}), os._exit(3)))
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploying, "BEGIN_S", dict.fromkeys(deploying.BEGIN_S, PATIENCE_S))
        patch.setattr(deploying, "CANCEL_S", PATIENCE_S)
        with running_stack(tmp_path_factory.mktemp("stack")) as stack:
            yield stack


def submit(stack: Stack, folder: Path, *faults: str) -> str:
    store = {"url": str(folder / ".cures")}
    return trigger(stack, "train", {**tomllib.loads(PROFILE), "store": store, "faults": faults})


def kill_worker(stack: Stack) -> None:
    worker = process_id(stack.folder, "worker")
    assert worker is not None, tail(stack)
    kill_tree(worker)


def set_state(stack: Stack, run: str, state: str) -> Any:
    return call(stack, f"/flow_runs/{run}/set_state", {"state": {"type": state}})


def states_of(stack: Stack, run: str) -> list[str]:
    """Names of all states that a run has had: a busy machine may miss those that are short."""
    return [state["name"] for state in call(stack, f"/flow_run_states/?flow_run_id={run}")]


def test_a_worker_killed_before_its_run_began_frees_the_slot(stack: Stack, tmp_path: Path) -> None:
    """And so does one that is killed while its run is being cancelled: which nobody else would ever end."""
    first = submit(stack, tmp_path / "first")
    deadline = time.monotonic() + 120
    while call(stack, f"/flow_runs/{first}")["state_type"] != "PENDING":
        assert time.monotonic() < deadline, tail(stack)
        time.sleep(0.02)
    kill_worker(stack)
    assert call(stack, f"/flow_runs/{first}")["state_type"] == "PENDING"
    second = submit(stack, tmp_path / "second", "warm_start.step:5=pause")
    start(stack, PROJECT, print)  # a new worker, as an operator would
    wait_for(stack, second, lambda _: "Late" in states_of(stack, second))
    crashed = wait_for(stack, first, ended)
    assert crashed["state_type"] == "CRASHED", crashed["state"]
    assert "did not begin" in crashed["state"]["message"]
    wait_for_pause(tmp_path / "second" / ".cures", "warm_start.step:5")  # it has the slot

    third = submit(stack, tmp_path / "third", "stage.start:validate_dataset=raise")
    kill_worker(stack)
    set_state(stack, second, "CANCELLING")
    start(stack, PROJECT, print)  # Prefect counts no run that is Cancelling: the third need not wait for the second
    cancelled = wait_for(stack, second, ended)
    assert cancelled["state_type"] == "CANCELLED", cancelled["state"]
    assert "nobody has ended it" in cancelled["state"]["message"]
    failed = wait_for(stack, third, ended)  # its own fault: it has had the slot
    assert failed["state_type"] == "FAILED", failed["state"]
    assert set_state(stack, first, "SCHEDULED")["status"] == "ACCEPT"  # Retry


def test_a_process_killed_before_its_first_heartbeat_frees_the_slot(stack: Stack) -> None:
    """That moment is too short to kill in, so the states are set here; another end just before it, as of a Retry."""
    kill_worker(stack)
    found = call(stack, "/deployments/name/train/train")
    body = {"parameters": found["parameters"], "state": {"type": "SCHEDULED"}}
    run = call(stack, f"/deployments/{found['id']}/create_flow_run", body)["id"]
    for state in ("PENDING", "RUNNING", "FAILED", "SCHEDULED", "PENDING", "RUNNING"):
        assert set_state(stack, run, state)["status"] == "ACCEPT"
        time.sleep(2)  # as it takes in earnest: of events at once the server may see the later one first
    crashed = wait_for(stack, run, ended)
    assert crashed["state_type"] == "CRASHED", crashed["state"]
    assert "no heartbeat" in crashed["state"]["message"]


def test_ten_triggers_at_once_make_one_run_under_postgres_with_repeatable_reads(open_folder: Path) -> None:
    folder, key = open_folder / "stack", uuid.uuid4().hex
    start_postgres(folder)
    try:
        asyncio.run(_set_isolation(service_environment(folder)))
        with running_stack(folder) as stack:
            kill_worker(stack)
            time.sleep(5)  # the server reads its automations anew
            config = load_config(write_profile(folder))
            with ThreadPoolExecutor(10) as threads:
                told = [threads.submit(announce, stack.api_url, key, config, "set.jsonl", "latest") for _ in range(10)]
            assert [one.exception() for one in told] == [None] * 10
            deadline = time.monotonic() + 120
            while not runs_of(stack.api_url, key):
                assert time.monotonic() < deadline, "no run was created"
                time.sleep(0.5)
            time.sleep(10)
            assert len(runs_of(stack.api_url, key)) == 1
    finally:
        stop_process(folder, "postgres", signal.SIGINT)


async def _set_isolation(env: dict[str, str]) -> None:
    address = env["PREFECT_SERVER_DATABASE_CONNECTION_URL"].replace("+asyncpg", "")
    connection = await asyncpg.connect(address)
    await connection.execute("ALTER SYSTEM SET default_transaction_isolation = 'repeatable read'")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()
    connection = await asyncpg.connect(address)
    assert await connection.fetchval("SHOW transaction_isolation") == "repeatable read"
    await connection.close()


def test_an_exit_that_is_slow_and_bad_does_not_change_a_completed_run(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last heartbeat comes after its end, and its exit code is not 0."""
    (tmp_path / "sitecustomize.py").write_text(LATE_EXIT.format(seconds=4 * deploying.HEARTBEAT_S))
    worker = process_id(stack.folder, "worker")
    if worker is not None:
        os.killpg(worker, signal.SIGKILL)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    start(stack, PROJECT, print)
    found = call(stack, "/deployments/name/doctor/doctor")
    run = call(stack, f"/deployments/{found['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]
    done = wait_for(stack, run, ended)
    assert done["state_type"] == "COMPLETED", done["state"]
    log, deadline = stack.folder / "worker.log", time.monotonic() + 8 * deploying.HEARTBEAT_S
    while "status code: 3" not in log.read_text(errors="replace"):
        assert time.monotonic() < deadline, tail(stack)
        time.sleep(1)
    time.sleep(5)
    assert call(stack, f"/flow_runs/{run}")["state_type"] == "COMPLETED"
