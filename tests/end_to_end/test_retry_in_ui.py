"""A deployed run fails, a person presses Retry in the Prefect UI, and it ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import time
import tomllib
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from flows.stack import Stack, start
from tests.end_to_end.pipeline import PROFILE, PROJECT, cures, results, write_profile
from tests.end_to_end.stack import browser_page, call, ended, press_retry, running_stack, task_states, trigger, wait_for

pytestmark = pytest.mark.end_to_end


def config(folder: Path, **changes: Any) -> dict[str, Any]:
    """The tiny profile with its store in `folder`."""
    return {**tomllib.loads(PROFILE), "store": {"url": str(folder / ".cures")}, **changes}


def test_retry_after_an_exception_goes_on_where_it_failed(tmp_path: Path) -> None:
    calm, troubled = tmp_path / "calm", tmp_path / "troubled"
    calm.mkdir()
    undisturbed = cures("run", "--config", write_profile(calm), "--json", cwd=calm)
    assert undisturbed.code == 0, undisturbed.err
    run_name = undisturbed.summary["run"]
    with running_stack(tmp_path / "stack") as stack, browser_page() as page:
        run = trigger(stack, "train", config(troubled, faults=["train.step:6=raise"]))
        failed = wait_for(stack, run, ended)
        assert failed["state_type"] == "FAILED", failed["state"]
        assert "fault injected at train.step:6" in failed["state"]["message"]
        press_retry(page, stack, run)
        done = wait_for(stack, run, lambda r: r["run_count"] > 1 and ended(r))
        assert done["state_type"] == "COMPLETED", done["state"]
        states = task_states(stack, run)
        assert {name for name, state in states.items() if state == "Cached"} >= {
            "validate_dataset",
            "prepare_policy",
            "estimate_prior",
            "train_epoch 1",
        }
        assert states["train_epoch 2"] == "Completed"
    assert results(troubled, run_name) == results(calm, run_name)


def test_killed_with_its_worker_a_run_is_found_dead_and_retried(tmp_path: Path) -> None:
    troubled = tmp_path / "troubled"
    with running_stack(tmp_path / "stack") as stack, browser_page() as page:
        run = trigger(stack, "train", config(troubled, steps_per_epoch=4000, epochs=1))
        deadline = time.monotonic() + 180
        while not list(troubled.glob(".cures/scratch/train_epoch/*/scratch/step-*")):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        worker = json.loads((stack.folder / "worker.json").read_bytes())["pid"]
        kill_tree(worker)
        crashed = wait_for(stack, run, ended)
        assert crashed["state_type"] == "CRASHED"
        assert "no heartbeat" in crashed["state"]["message"]
        start(stack, PROJECT, print)  # a new worker, as an operator would
        press_retry(page, stack, run)
        wait_for(stack, run, lambda r: r["run_count"] > 1 and r["state_type"] == "RUNNING")
        states = wait_until_training_goes_on(stack, run)
        assert states["prepare_policy"] == "Cached"


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and everything below it, as a power cut would."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(pid, signal.SIGKILL)
    for child in children:
        kill_tree(int(child))


def wait_until_training_goes_on(stack: Stack, run: str) -> dict[str, str]:
    deadline = time.monotonic() + 120
    while True:
        states = task_states(stack, run)
        if states.get("train_epoch 1") == "Running" and states.get("estimate_prior") == "Cached":
            return states
        assert time.monotonic() < deadline, states
        time.sleep(1)


def test_the_schedule_makes_runs_and_the_form_rejects_bad_values(tmp_path: Path) -> None:
    with running_stack(tmp_path / "stack") as stack, browser_page() as page:
        nightly = {"deployments": {"name": {"any_": ["train-nightly"]}}}
        scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        deadline = time.monotonic() + 90
        while not (runs := call(stack, "/flow_runs/filter", {**nightly, **scheduled})):
            assert time.monotonic() < deadline
            time.sleep(1)
        assert all(run["expected_start_time"].endswith(("02:00:00Z", "02:00:00+00:00")) for run in runs)
        found = call(stack, "/deployments/name/train/train")
        with pytest.raises(urllib.error.HTTPError) as refused:
            trigger(stack, "train", config(tmp_path, seed=-1))
        assert refused.value.code == 409
        assert "-1 is less than the minimum" in refused.value.read().decode()
        page.goto(f"{stack.ui_url}/deployments/deployment/{found['id']}/run")
        page.get_by_text("Steps Per Epoch").first.wait_for(timeout=30_000)
        assert page.get_by_text("Optimizer steps of an epoch.").count() >= 1
