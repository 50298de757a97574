"""A deployed run is broken off in epoch 2, a person presses Retry in the Prefect UI, and it ends as if undisturbed.

The pictures of docs/operations.md are taken on the way: CURES_PICTURES=docs/images keeps them there.
"""

from __future__ import annotations

import json
import os
import signal
import time
import tomllib
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.local.deploying import HEARTBEAT_S
from flows.local.processes import process_id, stop_process
from flows.local.stack import Stack, start
from tests.end_to_end.pipeline import PROFILE, PROJECT, cures, results, write_profile
from tests.end_to_end.processes import flow_of, kill_tree, wait_for_pause, wait_for_sigterm, wait_until_gone
from tests.end_to_end.stack import (
    browser_page,
    call,
    ended,
    leave,
    open_run_page,
    press_cancel,
    press_retry,
    running_stack,
    take_picture,
    task_states,
    trigger,
    wait_for,
)

pytestmark = pytest.mark.end_to_end

DONE_BEFORE = {"validate_dataset", "prepare_policy", "estimate_prior", "train_epoch 1", "snapshot_posterior 1"}
SIZES = {"steps_per_epoch": 10, "checkpoint_every": 5}  # 20 steps; 11..20 are epoch 2


@dataclass(frozen=True)
class Desk:
    """What an operator has before them, and what an undisturbed run has made."""

    stack: Stack
    page: Any
    run: str
    digests: dict[str, str]
    pictures: Path

    def submit(self, folder: Path, *faults: str) -> str:
        """A run of the deployment `train` with its store in `folder`; returns the flow run's id."""
        store = {"url": str(folder / ".cures")}
        return trigger(self.stack, "train", {**tomllib.loads(PROFILE), **SIZES, "store": store, "faults": faults})

    def retry(self, run: str, state: str, picture: str) -> dict[str, str]:
        """See it in `state`, press Retry, wait for its end; returns the states of its tasks."""
        open_run_page(self.page, self.stack, run, state)
        take_picture(self.page, self.pictures / f"{picture}.png")
        time.sleep(6)  # a worker that has lost a run reports that twice
        press_retry(self.page, self.stack, run)
        done = wait_for(self.stack, run, lambda r: r["run_count"] > 1 and ended(r))
        assert done["state_type"] == "COMPLETED", done["state"]
        open_run_page(self.page, self.stack, run, "Completed")
        self.page.locator("#task-runs").click()
        self.page.get_by_placeholder("Search by run name").fill("train_epoch")
        take_picture(self.page, self.pictures / f"{picture}-retried.png")
        leave(self.page)
        return task_states(self.stack, run)

    def check(self, folder: Path, states: dict[str, str]) -> None:
        """Finished stages are cached, the broken one went on, and every byte is that of the undisturbed run."""
        assert {name for name, state in states.items() if state == "Cached"} >= DONE_BEFORE, states
        assert states["train_epoch 2"] == "Completed"
        assert results(folder, self.run) == self.digests


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    calm = tmp_path_factory.mktemp("calm")
    sizes = [word for name, value in SIZES.items() for word in ("--set", f"{name}={value}")]
    undisturbed = cures("run", "--config", write_profile(calm), *sizes, "--json", cwd=calm)
    assert undisturbed.code == 0, undisturbed.err
    run = undisturbed.summary["run"]
    folder = tmp_path_factory.mktemp("stack")
    pictures = Path(os.environ.get("CURES_PICTURES", folder / "pictures")).absolute()
    with running_stack(folder) as stack, browser_page() as page:
        yield Desk(stack, page, run, results(calm, run), pictures)


def test_an_exception(desk: Desk, tmp_path: Path) -> None:
    run = desk.submit(tmp_path, "train.step:13=raise")
    failed = wait_for(desk.stack, run, ended)
    assert failed["state_type"] == "FAILED", failed["state"]
    assert "fault injected at train.step:13" in failed["state"]["message"]
    assert failed["name"] == f"train {desk.run}"
    assert failed["tags"] == ["cures"]
    lines = [row["message"] for row in call(desk.stack, "/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})]
    assert any(line.startswith(f"{desk.run}: train_epoch 1: ") for line in lines)
    desk.check(tmp_path, desk.retry(run, "Failed", "exception"))


def test_the_epochs_process_killed_more_often_than_it_is_retried(desk: Desk, tmp_path: Path) -> None:
    points = ("train.step:12", "train.step:13", "train.step:16")
    run = desk.submit(tmp_path, *(f"{point}=pause" for point in points))
    for point in points:
        os.kill(wait_for_pause(tmp_path / ".cures", point), signal.SIGKILL)
    failed = wait_for(desk.stack, run, ended)
    assert failed["state_type"] == "FAILED", failed["state"]
    assert "ended by SIGKILL" in failed["state"]["message"]
    desk.check(tmp_path, desk.retry(run, "Failed", "epoch-killed"))


def test_flow_and_worker_killed(desk: Desk, tmp_path: Path) -> None:
    run = desk.submit(tmp_path, "train.step:16=pause")
    wait_for_pause(tmp_path / ".cures", "train.step:16")
    worker = process_id(desk.stack.folder, "worker")
    assert worker is not None
    kill_tree(worker)
    crashed = wait_for(desk.stack, run, ended)
    assert crashed["state_type"] == "CRASHED"
    assert "no heartbeat" in crashed["state"]["message"]
    start(desk.stack, PROJECT, print)  # a new worker, as an operator would
    desk.check(tmp_path, desk.retry(run, "Crashed", "worker-killed"))


def restart_worker(stack: Stack) -> None:
    """After the server was away a worker goes on, but hears of no cancellation any more (Prefect 3.7)."""
    stop_process(stack.folder, "worker")
    start(stack, PROJECT, print)


def test_the_server_is_gone_while_the_epoch_goes_on_and_fails(desk: Desk, tmp_path: Path) -> None:
    run = desk.submit(tmp_path, "train.step:13=pause", "train.step:17=raise")
    job = wait_for_pause(tmp_path / ".cures", "train.step:13")
    server = process_id(desk.stack.folder, "server")
    assert server is not None
    os.killpg(server, signal.SIGKILL)
    os.kill(job, signal.SIGCONT)
    wait_until_gone(job)  # it trains on without a server, up to its fault
    start(desk.stack, PROJECT, print)
    failed = wait_for(desk.stack, run, ended)
    assert failed["state_type"] == "FAILED", failed["state"]
    assert "fault injected at train.step:17" in failed["state"]["message"]
    desk.check(tmp_path, desk.retry(run, "Failed", "server-restarted"))
    restart_worker(desk.stack)


def test_without_its_server_for_minutes_a_run_ends_by_itself(desk: Desk, tmp_path: Path) -> None:
    run = desk.submit(tmp_path, "train.step:13=pause")
    job = wait_for_pause(tmp_path / ".cures", "train.step:13")
    server = process_id(desk.stack.folder, "server")
    assert server is not None
    os.killpg(server, signal.SIGKILL)
    back = time.monotonic() + 4 * HEARTBEAT_S  # longer than the automation waits for a heartbeat
    os.kill(job, signal.SIGCONT)
    status = tmp_path / ".cures" / "runs" / desk.run / "status.json"
    while time.monotonic() < back or json.loads(status.read_bytes())["status"] == "running":
        assert time.monotonic() < back + 240
        time.sleep(0.5)
    assert json.loads(status.read_bytes())["status"] == "completed"
    start(desk.stack, PROJECT, print)
    done = wait_for(desk.stack, run, lambda r: r["state_type"] == "COMPLETED")
    assert done["run_count"] == 1
    assert results(tmp_path, desk.run) == desk.digests
    restart_worker(desk.stack)


def test_cancel(desk: Desk, tmp_path: Path) -> None:
    run = desk.submit(tmp_path, "train.step:13=pause")
    job = wait_for_pause(tmp_path / ".cures", "train.step:13")
    press_cancel(desk.page, desk.stack, run)
    wait_for_sigterm(job)
    os.kill(job, signal.SIGCONT)
    cancelled = wait_for(desk.stack, run, ended)
    assert cancelled["state_type"] == "CANCELLED"
    wait_until_gone(job)
    assert saved_steps(tmp_path) == [14]  # the step that was going on
    desk.check(tmp_path, desk.retry(run, "Cancelled", "cancelled"))


def test_sigterm_twice(desk: Desk, tmp_path: Path) -> None:
    run = desk.submit(tmp_path, "train.step:13=pause")
    job = wait_for_pause(tmp_path / ".cures", "train.step:13")
    flow = flow_of(job)
    os.kill(flow, signal.SIGTERM)  # a spot machine is taken away
    wait_for_sigterm(job)
    os.kill(flow, signal.SIGTERM)  # asking again does no harm
    os.kill(job, signal.SIGCONT)
    crashed = wait_for(desk.stack, run, ended)
    assert crashed["state_type"] == "CRASHED", crashed["state"]
    wait_until_gone(job)
    assert saved_steps(tmp_path) == [14]
    desk.check(tmp_path, desk.retry(run, "Crashed", "sigterm"))


def test_a_second_run_waits_visibly_for_the_first(desk: Desk, tmp_path: Path) -> None:
    first = desk.submit(tmp_path / "first", "warm_start.step:5=pause")
    job = wait_for_pause(tmp_path / "first" / ".cures", "warm_start.step:5")
    second = desk.submit(tmp_path / "second")
    wait_for(desk.stack, second, lambda r: r["state_name"] == "Late")
    open_run_page(desk.page, desk.stack, second, "Late")
    take_picture(desk.page, desk.pictures / "queue.png")
    leave(desk.page)
    assert not (tmp_path / "second").exists()
    for run in (second, first):
        call(desk.stack, f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    wait_for_sigterm(job)
    os.kill(job, signal.SIGCONT)
    for run in (first, second):
        assert wait_for(desk.stack, run, ended)["state_type"] == "CANCELLED"


def saved_steps(folder: Path) -> list[int]:
    """Steps of the unfinished epoch that can be gone on from."""
    return sorted(int(p.name.split("-")[1]) for p in folder.glob(".cures/scratch/train_epoch/*/*/scratch/step-*"))


def test_the_schedule_makes_runs_and_the_form_rejects_bad_values(desk: Desk) -> None:
    nightly = {"deployments": {"name": {"any_": ["train-nightly"]}}}
    scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    deadline = time.monotonic() + 90
    while not (runs := call(desk.stack, "/flow_runs/filter", {**nightly, **scheduled})):
        assert time.monotonic() < deadline
        time.sleep(1)
    assert all(run["expected_start_time"].endswith(("02:00:00Z", "02:00:00+00:00")) for run in runs)
    found = call(desk.stack, "/deployments/name/train/train")
    with pytest.raises(urllib.error.HTTPError) as refused:
        trigger(desk.stack, "train", {**tomllib.loads(PROFILE), "seed": -1})
    assert refused.value.code == 409
    assert "-1 is less than the minimum" in refused.value.read().decode()
    desk.page.goto(f"{desk.stack.ui_url}/deployments/deployment/{found['id']}/run")
    desk.page.get_by_text("Steps Per Epoch").first.wait_for(timeout=30_000)
    assert desk.page.get_by_text("Optimizer steps of an epoch.").count() >= 1
