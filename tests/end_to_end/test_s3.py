"""A run whose state lies on S3: gone on with on a machine with an empty disk, and through an outage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.local.processes import process_id
from flows.local.stack import start
from tasks.runs.figures import EpochFigures
from tasks.runs.notes import run_names, stage_record
from tasks.storage import S3Store
from tasks.storage.s3_client import make_client
from tests.end_to_end.pipeline import PROFILE, PROJECT, results, results_in, write_profile
from tests.end_to_end.pipeline import cures as command
from tests.end_to_end.processes import kill_tree, wait_for_pause, wait_until_gone
from tests.end_to_end.stack import call, ended, running_stack, trigger, wait_for
from tests.tasks.storage.servers import BUCKET, Action, FaultyServer, SeaweedFS, credentials, moto_url, seaweedfs

__all__ = ["moto_url"]
pytestmark = pytest.mark.end_to_end

SIZES = ("--set", "steps_per_epoch=14", "--set", "checkpoint_every=7")  # 15..28 are epoch 2
URL = f"s3://{BUCKET}/runs"
PAUSE = "checkpoint.half_written:28"
"""Steps are saved one after another, beside training: here that of step 21 is whole."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run makes on a store in a folder, with nobody in its way."""
    folder = tmp_path_factory.mktemp("calm")
    outcome = command("run", "--config", write_profile(folder), *SIZES, "--json", cwd=folder)
    assert outcome.code == 0, outcome.err
    return results(folder, outcome.summary["run"])


@contextmanager
def running(
    folder: Path, snapshots: Path, endpoint: str, *more: str, faults: tuple[str, ...] = (), url: str = URL
) -> Iterator[subprocess.Popen[str]]:
    """`cures run` on a machine whose disk is `folder`."""
    folder.mkdir()
    profile = write_profile(folder, faults)
    places = ("--store", url, "--set", f"store.endpoint_url={endpoint}", "--set", f"snapshot.repository={snapshots}")
    words = [sys.executable, "-m", "flows.cli.main", "run", "--config", str(profile), *SIZES, *places, *more, "--json"]
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, cwd=folder, env=env, text=True, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            if process.poll() is None:
                kill_tree(process.pid)


def check_another_machine_goes_on(tmp_path: Path, endpoint: str, undisturbed: dict[str, str]) -> None:
    store = S3Store(URL, tmp_path / "watcher", endpoint)
    snapshots = tmp_path / "snapshots.git"
    with running(tmp_path / "a", snapshots, endpoint, faults=(f"{PAUSE}=pause",)) as first:
        wait_for_pause(tmp_path / "a" / ".cures", PAUSE)
        deadline = time.monotonic() + 180
        while not [key for key in store.list("unfinished") if key.endswith("step-000021/manifest.json")]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        kill_tree(first.pid)
    (run,) = run_names(store)
    assert stage_record(store, run, EpochFigures, "2") is None
    with running(tmp_path / "b", snapshots, endpoint) as second:
        out, err = second.communicate(timeout=900)
    assert second.returncode == 0, err
    summary = json.loads(out.splitlines()[-1])
    done_before = {stage["name"] for stage in summary["stages"] if stage["cached"]}
    assert {"validate_dataset", "prepare_policy", "estimate_prior", "train_epoch 1"} <= done_before
    check_steps(store, run, [22, 23, 24, 25, 26, 27, 28])
    assert results_in(store, run) == undisturbed
    assert list(store.list("unfinished")) == []


def check_steps(store: S3Store, run: str, steps: list[int]) -> None:
    """Those of epoch 2 that the machine has done which committed it."""
    record = stage_record(store, run, EpochFigures, "2")
    assert record is not None
    timings = (store.local_path(record.files or "") / "timings.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in timings] == steps


def test_a_machine_with_an_empty_disk_goes_on_in_the_middle_of_an_epoch(
    tmp_path: Path, moto_url: str, undisturbed: dict[str, str]
) -> None:
    check_another_machine_goes_on(tmp_path, moto_url, undisturbed)


@pytest.mark.slow
def test_a_checkpoint_whose_upload_was_cut_short_counts_for_nothing(
    tmp_path: Path, moto_url: str, undisturbed: dict[str, str]
) -> None:
    """Another machine goes on from the one before it."""
    url, snapshots, often = f"s3://{BUCKET}/cut", tmp_path / "snapshots.git", ("--set", "checkpoint_every=3")

    def last_object_of_step_21(number: int, method: str) -> Action:
        is_it = method == "PUT" and "step-000021/manifest.json" in server.requests[number]
        return (503, "SlowDown") if is_it else None

    def asked_for(server: FaultyServer, what: str) -> None:
        deadline = time.monotonic() + 180
        while not [request for request in list(server.requests) if request.startswith("PUT ") and what in request]:
            assert time.monotonic() < deadline
            time.sleep(0.2)

    pauses = ("train.step:20", "train.step:23")  # checkpoints that follow one another at once are not all sent
    with (
        FaultyServer(moto_url, last_object_of_step_21) as server,
        running(
            tmp_path / "a", snapshots, server.url, *often, url=url, faults=tuple(f"{at}=pause" for at in pauses)
        ) as first,
    ):
        job = wait_for_pause(tmp_path / "a" / ".cures", pauses[0])
        asked_for(server, "step-000018/.etags.json")
        os.kill(job, signal.SIGCONT)
        asked_for(server, "step-000021/manifest.json")
        kill_tree(first.pid)
    store = S3Store(url, tmp_path / "watcher", moto_url)
    assert [key for key in store.list("unfinished") if "step-000021" in key]
    with running(tmp_path / "b", snapshots, moto_url, *often, url=url) as second:
        _, err = second.communicate(timeout=900)
    assert second.returncode == 0, err
    (run,) = run_names(store)
    check_steps(store, run, list(range(19, 29)))
    assert results_in(store, run) == undisturbed
    assert list(store.list("unfinished")) == []


def test_retry_on_a_second_worker_with_an_empty_disk_and_a_stage_done_again_on_a_third(
    tmp_path: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worker, flow and epoch are killed at once, as a machine is lost, or as the kernel does where memory is short."""
    disk = tmp_path / "disk"
    with running_stack(tmp_path / "stack", s3=True) as stack:
        for name, value in stack.environment().items():
            if name.startswith("AWS_"):
                monkeypatch.setenv(name, value)
        config = {
            **tomllib.loads(PROFILE),
            "steps_per_epoch": 14,
            "checkpoint_every": 7,
            "store": {"url": "s3://cures/runs", "scratch": str(disk)},
            "snapshot": {"repository": str(tmp_path / "snapshots.git")},
            "faults": [f"{PAUSE}=pause"],
        }
        flow_run = trigger(stack, "train", config)
        wait_for_pause(disk, PAUSE)
        store = S3Store("s3://cures/runs", tmp_path / "watcher")
        deadline = time.monotonic() + 180
        while not [key for key in store.list("unfinished") if key.endswith("step-000021/manifest.json")]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        worker = process_id(stack.folder, "worker")
        assert worker is not None
        kill_tree(worker)
        shutil.rmtree(disk)
        start(stack, PROJECT, print)
        assert wait_for(stack, flow_run, ended)["state_type"] == "CRASHED"
        again = {"type": "SCHEDULED", "name": "AwaitingRetry"}  # Retry
        call(stack, f"/flow_runs/{flow_run}/set_state", {"state": again})
        job = wait_for_pause(disk, PAUSE)  # this disk knows nothing of what has fired on the other one
        os.kill(job, signal.SIGCONT)
        done = wait_for(stack, flow_run, lambda r: r["run_count"] > 1 and ended(r), 900)
        assert done["state_type"] == "COMPLETED", done["state"]
        (run,) = run_names(store)
        check_steps(store, run, [22, 23, 24, 25, 26, 27, 28])
        assert results_in(store, run) == undisturbed

        third = tmp_path / "third"
        third.mkdir()
        words = ["--from", "train_epoch 2", "--store", "s3://cures/runs", "--set", f"store.scratch={third / 'disk'}"]
        words += ["--set", "faults=[]"]  # a third disk knows nothing of them either
        outcome = command("run", "--resume", run, *words, "--json", cwd=third)
        assert outcome.code == 0, outcome.err
        redone = {stage["name"] for stage in outcome.summary["stages"] if not stage["cached"]}
        assert {"train_epoch 2", "snapshot_posterior 2"} <= redone
        assert not {"estimate_prior", "train_epoch 1", "snapshot_posterior 1"} & redone
        assert results_in(store, run) == undisturbed


@pytest.mark.slow
def test_the_same_on_seaweedfs(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    (tmp_path / "weed").mkdir()
    with seaweedfs(tmp_path / "weed") as endpoint:
        check_another_machine_goes_on(tmp_path, endpoint, undisturbed)


@pytest.mark.slow
def test_an_outage_costs_time_and_nothing_else(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    (tmp_path / "weed").mkdir()
    server = SeaweedFS(tmp_path / "weed")
    with credentials():
        try:
            server.start()
            with running(
                tmp_path / "a", tmp_path / "snapshots.git", server.url, faults=("train.step:16=pause",)
            ) as process:
                job = wait_for_pause(tmp_path / "a" / ".cures", "train.step:16")
                server.kill()
                os.kill(job, signal.SIGCONT)
                wait_until_gone(job)  # training goes on to the end of the epoch
                (spooled,) = (tmp_path / "a" / ".cures").glob("scratch/train_epoch/*/*/out")
                assert (spooled / "checkpoint" / "manifest.json").exists()
                time.sleep(70)  # longer than a server is waited for that has never answered
                assert process.poll() is None
                back = time.time()
                server.start()
                _, err = process.communicate(timeout=900)
            assert process.returncode == 0, err
            store = S3Store(URL, tmp_path / "watcher", server.url)
            (run,) = run_names(store)
            assert results_in(store, run) == undisturbed
            check_order_of_writes(store, run, server.url, back)
        finally:
            server.kill()


def check_order_of_writes(store: S3Store, run: str, endpoint: str, back: float) -> None:
    """The files of epoch 2 came after the outage, its manifest after them, its record last: nothing counted early."""
    record = stage_record(store, run, EpochFigures, "2")
    assert record is not None
    client = make_client(endpoint, attempts=3)

    def written(key: str) -> float:
        return float(client.head_object(Bucket=BUCKET, Key=f"runs/{key}")["LastModified"].timestamp())  # whole seconds

    manifest = written(f"{record.files}/manifest.json")
    files = [written(key) for key in store.list(record.files or "") if not key.endswith("/manifest.json")]
    assert back - 1 < min(files)
    assert max(files) <= manifest <= written(f"stages/{record.id}.json")
