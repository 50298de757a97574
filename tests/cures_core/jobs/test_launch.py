"""The launcher names the rank that failed, lets no rank outlive it, and passes a stop request on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cures_core.config.training import RanksConfig
from cures_core.errors import ChildFailed, OutOfMemory, Preempted, RankLost, StoreUnavailable
from cures_core.failures import UNREPORTED
from cures_core.jobs import launch
from cures_core.jobs.launch import Ranks

RANK = """
import json, os, pathlib, signal, sys, time
reports, rank = pathlib.Path(sys.argv[1]), os.environ["RANK"]
def fail(kind, message, code=1):
    (reports / f"{rank}.json").write_text(json.dumps({"class": kind, "message": message}))
    sys.exit(code)
def stop(*_):
    fail("Preempted", "asked to stop", 75)
signal.signal(signal.SIGTERM, stop)
(reports / f"{rank}.env").write_text(json.dumps(dict(os.environ)))
BODY
"""


def ranks(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch, processes: int = 3, *, gpu: bool = False) -> Ranks:
    script = folder / "rank.py"
    script.write_text(RANK.replace("BODY", body))
    monkeypatch.setattr(launch, "_RANK", (str(script),))
    cfg = RanksConfig(processes=processes)
    return Ranks(cfg, 0, folder / "reports", on_gpu=gpu, rank_0=(folder / "job.json", subprocess.DEVNULL))


def ended(made: Ranks) -> bool:
    return all(process.poll() is not None for process in made._processes.values())


def test_all_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks(tmp_path, "", monkeypatch).wait(lambda: False) is None


def test_the_rank_with_a_cause_is_named_not_the_ones_that_lost_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
if rank == "1":
    time.sleep(0.5)
    fail("OutOfMemory", "too large")
fail("RankLost", "the others are gone")
"""
    error = ranks(tmp_path, body, monkeypatch).wait(lambda: False)
    assert (type(error), str(error)) == (OutOfMemory, "rank 1 of 3: too large")


def test_a_killed_rank_is_named_and_the_others_do_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_GRACE_S", 0.5)
    body = "if rank == '2': os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(600)"
    made = ranks(tmp_path, body, monkeypatch)
    error = made.wait(lambda: False)
    assert type(error) is ChildFailed
    assert "rank 2 of 3 was ended by SIGKILL" in str(error)
    assert ended(made)


def test_a_rank_that_only_hangs_is_killed_when_the_others_have_waited_long_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_GRACE_S", 0.5)
    body = "if rank == '1': time.sleep(600)\nfail('RankLost', f'rank {rank} waited for the gradients')"
    made = ranks(tmp_path, body, monkeypatch)
    error = made.wait(lambda: False)
    assert type(error) is RankLost
    assert "waited for the gradients" in str(error)
    assert ended(made)


def test_a_rank_that_hangs_after_rank_0_has_ended_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_LEAVE_S", 0.5)
    made = ranks(tmp_path, "if rank != '0': time.sleep(600)", monkeypatch)
    assert made.wait(lambda: False) is None
    assert ended(made)


def test_a_stop_request_goes_to_rank_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ranks(tmp_path, "if rank == '0': time.sleep(600)", monkeypatch)
    while not (tmp_path / "reports" / "0.env").exists():
        time.sleep(0.05)
    error = made.wait(lambda: True)
    assert (type(error), str(error)) == (Preempted, "asked to stop")


def test_a_rank_that_breaks_off_because_another_was_killed_is_not_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for end in ("sys.exit(1)", "fail('UnexpectedError', 'RuntimeError: connection cut')"):
        body = f"if rank == '2': os.kill(os.getpid(), signal.SIGKILL)\nif rank == '0': {end}"
        error = ranks(tmp_path, body, monkeypatch).wait(lambda: False)
        assert type(error) is ChildFailed
        assert "rank 2 of 3 was ended by SIGKILL" in str(error)


def test_a_rank_that_leaves_with_an_unknown_code_is_named_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_GRACE_S", 0.5)
    error = ranks(tmp_path, "sys.exit(7) if rank == '1' else time.sleep(600)", monkeypatch).wait(lambda: False)
    assert type(error) is ChildFailed
    assert "rank 1 of 3 ended with exit code 7" in str(error)
    assert error.retryable


def test_a_rank_that_could_not_write_its_error_down_ran_out_of_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_GRACE_S", 0.5)
    body = f"sys.exit({UNREPORTED}) if rank == '1' else time.sleep(600)"
    error = ranks(tmp_path, body, monkeypatch).wait(lambda: False)
    assert type(error) is StoreUnavailable


def test_an_outer_launcher_s_meeting_place_is_not_used_on_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "elsewhere")
    ranks(tmp_path, "", monkeypatch).wait(lambda: False)
    env = json.loads((tmp_path / "reports" / "1.env").read_text())
    assert "MASTER_ADDR" not in env
    assert env["GLOO_SOCKET_IFNAME"] == "lo"


def test_every_rank_sees_its_own_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    ranks(tmp_path, "", monkeypatch, gpu=True).wait(lambda: False)
    seen = [json.loads((tmp_path / "reports" / f"{r}.env").read_text()) for r in range(3)]
    assert [env["CUDA_VISIBLE_DEVICES"] for env in seen] == ["4", "6", ""]
    assert [(env["RANK"], env["LOCAL_RANK"], env["WORLD_SIZE"]) for env in seen] == [
        (str(r), "0", "3") for r in range(3)
    ]


SLEEPER = """
import os, time
print(os.getpid(), flush=True)
from cures_core.jobs.parent import Parent
Parent()
time.sleep(600)
"""
LAUNCHER = """
import pathlib, sys
from cures_core.config.training import RanksConfig
from cures_core.errors import ChildFailed, OutOfMemory, Preempted, RankLost, StoreUnavailable
from cures_core.failures import UNREPORTED
from cures_core.jobs import launch
folder = pathlib.Path(sys.argv[1])
launch._RANK = (str(folder / "rank.py"),)
rank_0 = (pathlib.Path("job.json"), sys.stdout)
launch.Ranks(RanksConfig(processes=2), 0, folder / "reports", on_gpu=False, rank_0=rank_0).wait(lambda: False)
"""


def test_ranks_end_when_the_launcher_is_killed(tmp_path: Path) -> None:
    """Its end of their standard input closes, which is what a rank's `Parent` waits for."""
    (tmp_path / "rank.py").write_text(SLEEPER)
    command = [sys.executable, "-c", LAUNCHER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        rank_0 = int(launcher.stdout.readline())
        os.kill(launcher.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while Path(f"/proc/{rank_0}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
