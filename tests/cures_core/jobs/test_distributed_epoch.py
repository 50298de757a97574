"""Epochs over several processes: results of one, a killed rank is named, a resumed epoch ends with the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cures_core.errors import ChildFailed, Preempted
from cures_core.jobs.spec import Job
from tasks.stages.job_process import run_job
from tests.cures_core.jobs.epochs import make_job, outcome

pytestmark = pytest.mark.slow

TWO = {"type": "torchrun", "processes": 2}


def run(job: Job, *faults: str, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
    if monkeypatch is not None:
        monkeypatch.setenv("CURES_FAULTS", ",".join(faults))
        monkeypatch.setenv("CURES_FAULTS_DIR", str(job.scratch / "faults"))
    run_job(job)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Any:
    job = make_job(tmp_path_factory.mktemp("one"), {"type": "torch"})
    run_job(job)
    return outcome(job)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Any:
    job = make_job(tmp_path_factory.mktemp("two"), TWO)
    run_job(job)
    return outcome(job)


def assert_same_training(one: Any, other: Any) -> None:
    """Tokens alike, weights and moments up to float tolerance; every step was an update."""
    (a, figures), (b, others) = one, other
    assert sum(row["updated"] for row in a.metrics) == len(a.metrics)
    assert [row["tokens_total"] for row in a.metrics] == [row["tokens_total"] for row in b.metrics]
    assert [row["reward_mean"] for row in a.metrics] == [row["reward_mean"] for row in b.metrics]
    assert (figures["rollouts"], figures["tokens"]) == (others["rollouts"], others["tokens"])
    for mine, theirs in ((a.weights, b.weights), (a.optimizer, b.optimizer)):
        assert set(mine) == set(theirs)
        assert all(torch.allclose(v, theirs[k], atol=5e-4) for k, v in mine.items())


def orphans(folder: Path) -> list[int]:
    """Processes whose command line names the folder."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and int(place.name) != os.getpid():
            try:
                if str(folder) in (place / "cmdline").read_text():
                    found.append(int(place.name))
            except OSError:
                continue
    return found


def test_two_processes_give_the_results_of_one(one: Any, two: Any) -> None:
    assert_same_training(one, two)
    assert two[1]["machine"] == {**one[1]["machine"], "ranks": "2"}  # what the last digits depend on is told


def test_zero_3_generates_with_gathered_weights_and_gives_the_same_results(one: Any, tmp_path: Path) -> None:
    job = make_job(tmp_path, {"type": "deepspeed", "processes": 2, "zero_stage": 3})
    run_job(job)
    assert_same_training(one, outcome(job))
    gaps = [row["logprob_gap_max"] for row in outcome(job)[0].metrics]
    assert max(gaps) < 1e-4  # rollouts were made with the weights of the step before


def test_a_killed_rank_fails_the_epoch_by_name_and_the_resumed_one_ends_with_the_same_bytes(
    two: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, TWO)
    started = time.monotonic()
    with pytest.raises(ChildFailed, match="rank 1 of 2 was ended by SIGKILL"):
        run(job, "rank.update:3=kill", monkeypatch=monkeypatch)
    assert time.monotonic() - started < 600  # far below wait_timeout_s
    assert orphans(tmp_path) == []
    run(job, "rank.update:3=kill", monkeypatch=monkeypatch)
    whole, resumed = two[0], outcome(job)[0]
    assert all(torch.equal(v, resumed.weights[k]) for k, v in whole.weights.items())
    assert all(torch.equal(v, resumed.optimizer[k]) for k, v in whole.optimizer.items())
    assert whole.metrics == resumed.metrics


@pytest.mark.parametrize("point", ["half_written", "before_manifest", "before_rename"])
def test_killed_while_a_checkpoint_is_written_behind_training(
    one: Any, point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, {"type": "torch"})
    with pytest.raises(ChildFailed, match="SIGKILL"):
        run(job, f"checkpoint.{point}:3=kill", monkeypatch=monkeypatch)
    assert sorted(p.name for p in job.scratch.glob("step-*")) == ["step-000001", "step-000002"]
    run_job(job)
    whole, resumed = one[0], outcome(job)[0]
    assert all(torch.equal(v, resumed.weights[k]) for k, v in whole.weights.items())
    assert all(torch.equal(v, resumed.optimizer[k]) for k, v in whole.optimizer.items())
    assert whole.metrics == resumed.metrics


@pytest.mark.parametrize(("before", "after"), [({"type": "torch"}, TWO), (TWO, {"type": "torch"})])
def test_an_epoch_goes_on_at_another_number_of_processes(
    one: Any, before: Any, after: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, before)
    with pytest.raises(Preempted, match="saved step 2"):
        run(job, "train.before_checkpoint:2=stop", monkeypatch=monkeypatch)
    run(make_job(tmp_path, after))
    assert_same_training(one, outcome(job))


def test_two_nodes_on_one_machine(one: Any, tmp_path: Path) -> None:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    command = [sys.executable, "-m", "flows.cli.main", "join", address, "--node", "1", "--nodes", "2", "--idle", "20"]
    with subprocess.Popen([*command, "--device", "cpu"], stdin=subprocess.DEVNULL) as other:
        job = make_job(tmp_path, {"type": "torchrun", "processes": 1, "nodes": 2, "address": address})
        run_job(job)
        assert other.wait(60) == 0
    assert_same_training(one, outcome(job))
