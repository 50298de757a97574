"""Faults of a Prefect server and its worker, and of what triggers their runs."""

from __future__ import annotations

import os
import signal
import time
import tomllib
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from cures_core.config.loading import load_config
from flows.local.processes import process_id
from flows.local.stack import Stack, start, stop
from tasks.ci.announce import announce, runs_of
from tasks.storage import LocalStore
from tests.end_to_end.pipeline import PROFILE, PROJECT, results, write_profile
from tests.end_to_end.processes import kill_tree
from tests.end_to_end.stack import call, ended, free_port, running_stack, trigger, wait_for
from tests.faults.drills.commands import undisturbed
from tests.faults.harness import Try, at_end
from tests.faults.invariants import check_store


@contextmanager
def _stack(t: Try) -> Iterator[Stack]:
    with running_stack(t.folder / "stack") as stack:
        yield stack


def submit(stack: Stack, folder: Path) -> str:
    return trigger(stack, "train", {**tomllib.loads(PROFILE), "store": {"url": str(folder / ".cures")}})


def kill_server(stack: Stack) -> None:
    server = process_id(stack.folder, "server")
    assert server is not None
    os.killpg(server, signal.SIGKILL)


def kill_worker(stack: Stack) -> None:
    """With everything below it, as when the machine is gone."""
    worker = process_id(stack.folder, "worker")
    assert worker is not None
    kill_tree(worker)


def server_restarted(t: Try) -> Mapping[str, int]:
    """The server is killed at a random instant of a deployed run and comes back within a minute: the run goes on, once,
    and in the end the server says so."""
    calm = undisturbed(t.bench)
    with _stack(t) as stack:
        run = submit(stack, t.folder)
        wait_for(stack, run, lambda r: r["state_type"] == "RUNNING")
        time.sleep(float(t.rng.uniform(0, calm.seconds)))
        kill_server(stack)
        time.sleep(float(t.rng.uniform(0, 60)))
        start(stack, PROJECT, print)
        done = wait_for(stack, run, lambda r: r["state_type"] == "COMPLETED", 900)
        assert done["run_count"] == 1
        assert results(t.folder, calm.run) == calm.digests, "other bytes than the undisturbed run"
        _check(t.folder)
    return {}


def machine_lost(t: Try) -> Mapping[str, int]:
    """Worker, flow and job are killed at once at a random instant; the run shows as crashed, and after Retry on a new
    worker it ends with the same bytes."""
    calm = undisturbed(t.bench)
    with _stack(t) as stack:
        run = submit(stack, t.folder)
        wait_for(stack, run, lambda r: r["state_type"] == "RUNNING")
        time.sleep(float(t.rng.uniform(0, calm.seconds)))
        kill_worker(stack)
        crashed = wait_for(stack, run, ended)
        start(stack, PROJECT, print)
        if crashed["state_type"] != "COMPLETED":
            assert crashed["state_type"] == "CRASHED", crashed["state"]
            retry = {"type": "SCHEDULED", "name": "AwaitingRetry"}
            call(stack, f"/flow_runs/{run}/set_state", {"state": retry})
            done = wait_for(stack, run, lambda r: r["run_count"] > 1 and ended(r), 900)
            assert done["state_type"] == "COMPLETED", done["state"]
        assert results(t.folder, calm.run) == calm.digests, "other bytes than the undisturbed run"
        _check(t.folder)
    return {"crashed": int(crashed["state_type"] == "CRASHED")}


def _check(folder: Path) -> None:
    check_store(folder / ".cures", LocalStore(folder / ".cures"))


def duplicate_events(t: Try) -> Mapping[str, int]:
    """Ten equal events at once to a server without a worker: one run waits for one."""
    stack = _shared(t.bench)
    key = uuid.uuid4().hex
    config, told = load_config(write_profile(t.folder)), []
    with ThreadPoolExecutor(10) as threads:
        for _ in range(10):
            told.append(threads.submit(announce, stack.api_url, key, config, str(t.folder / "set.jsonl"), "latest"))
            time.sleep(float(t.rng.choice([0.0, 0.1])))
    for one in told:
        one.result()
    deadline = time.monotonic() + 60
    while not runs_of(stack.api_url, key):
        assert time.monotonic() < deadline, "no run was created"
        time.sleep(0.2)
    time.sleep(3)
    assert len(runs_of(stack.api_url, key)) == 1
    return {"events": 10}


@cache
def _shared(bench: Path) -> Stack:
    """A server without a worker, for all tries."""
    stack = Stack(bench / "stack", free_port())
    at_end(lambda: stop(stack))
    start(stack, PROJECT, print)
    kill_worker(stack)
    time.sleep(5)  # the server reads its automations anew
    return stack
