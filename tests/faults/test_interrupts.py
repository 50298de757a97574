"""Ctrl-C, as a terminal sends it: exit code 75, and a sentence that says what is saved and how to go on."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cures_core.config.loading import load_config
from cures_core.config.storage import StoreConfig
from tasks.runs.notes import run_overview
from tasks.runs.opening import open_run
from tasks.storage import open_store
from tests.end_to_end.pipeline import PROJECT, cures, write_profile


def interrupted(*arguments: object, cwd: Path, when: str) -> tuple[int, str, str]:
    """Run the command, interrupt its process group twice once a file matches `when`; its code, stdout and stderr."""
    command = [sys.executable, "-m", "flows.cli.main", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 300
        while not list(cwd.glob(when)):
            assert time.monotonic() < deadline, f"nothing like {when} has appeared"
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # people press it again
        out, err = process.communicate(timeout=90)
    return process.returncode, out, err


def check_told(code: int, err: str, saved: str, store: Path) -> str:
    """The run's name, as the last line tells it."""
    assert code == 75, err
    assert "Traceback" not in err
    told = err.strip().splitlines()[-1]
    assert told.startswith("cures: stopped by Ctrl-C."), err
    assert re.search(saved, told), told
    found = re.search(r"go on with: cures run --resume (\S+)$", told)
    assert found is not None, told
    status = json.loads((store / "runs" / found[1] / "status.json").read_bytes())
    assert status["status"] == "stopped"
    return found[1]


@pytest.mark.end_to_end
def test_a_run_says_what_its_job_has_saved(tmp_path: Path) -> None:
    profile = write_profile(tmp_path)
    code, out, err = interrupted(
        "run", "--config", profile, "--set", "policy.steps=50000", "--json", cwd=tmp_path,
        when=".cures/scratch/prepare_policy/**/step-*",
    )  # fmt: skip
    check_told(code, err, "warm_start: asked to stop; saved the warm start's last checkpoint", tmp_path / ".cures")
    assert out == ""


@pytest.mark.end_to_end
def test_an_interrupted_epoch_goes_on_from_the_step_that_was_saved(tmp_path: Path) -> None:
    code, _, err = interrupted(
        "run", "--config", write_profile(tmp_path), "--set", "steps_per_epoch=40", "--set", "epochs=1", cwd=tmp_path,
        when=".cures/scratch/train_epoch/**/step-*",
    )  # fmt: skip
    run = check_told(code, err, r"epoch: asked to stop; saved step \d+", tmp_path / ".cures")
    resumed = cures("run", "--resume", run, "--json", cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    assert [s["name"] for s in resumed.summary["stages"] if s["cached"]][:2] == ["validate_dataset", "prepare_policy"]


def test_other_commands_end_alike(tmp_path: Path) -> None:
    """Here one that waits for an S3 which takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        env = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
        }
        command = [sys.executable, "-m", "flows.cli.main", "runs", "list", "--store", "s3://bucket/runs"]
        with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as process:
            server.settimeout(60)
            connection, _ = server.accept()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
            connection.close()
    assert process.returncode == 75, err
    assert err.startswith("cures: stopped by Ctrl-C. Run the same command again"), err


def test_looking_is_ended_by_ctrl_c_without_an_error(tmp_path: Path) -> None:
    store = open_store(StoreConfig(url=str(tmp_path / ".cures")))
    with open_run(load_config(write_profile(tmp_path), [f"store.url={tmp_path / '.cures'}"])) as run:
        assert run_overview(store, run.name).status == "running"
        command = [sys.executable, "-m", "flows.cli.main", "report", run.name, "--serve", "--port", "0"]
        env = {**os.environ, "PYTHONPATH": str(PROJECT)}
        with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert "Ctrl-C ends it" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
