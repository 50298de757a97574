"""An exception of a library may quote a secret: neither files, nor Prefect's database, nor its log get to see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cures_core.config.loading import load_config
from cures_core.errors import UnexpectedError
from cures_core.jobs.spec import Job
from tasks.stages.job_process import run_job
from tests.end_to_end.pipeline import PROJECT, write_profile
from tests.faults.invariants import CANARIES, spellings

SITE = Path(__file__).with_name("site")


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)


def shown(text: bytes) -> list[str]:
    """The secrets in a text, by their variables."""
    return [name for name, value in CANARIES.items() if any(spelling in text for spelling in spellings(value))]


@pytest.mark.parametrize("forked", [True, False])
def test_a_job_tells_none(forked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SITE), str(PROJECT)]))
    monkeypatch.setenv("CURES_DRILLS", "1")
    monkeypatch.setenv("QUOTED", " ".join(CANARIES))
    monkeypatch.setattr("tasks.stages.job_start.forks", lambda _: forked)
    folder = tmp_path / "quotes_secrets"
    folder.mkdir()
    config = load_config(write_profile(folder))
    with pytest.raises(UnexpectedError, match=r"no answer to .*\*\*\*") as caught:
        run_job(Job(name="warm_start", config=config, scratch=folder / "scratch", out=folder / "out"))
    log, report = (folder / "scratch" / "job.log").read_bytes(), (folder / "scratch" / "error.json").read_bytes()
    assert b"sent JUDGE_API_KEY: ***" in log
    assert b"Traceback" in log
    assert b"refused: {" in log  # where the error came from is told
    assert {place: shown(text) for place, text in (("log", log), ("report", report))} == {"log": [], "report": []}
    assert shown(str(caught.value).encode()) == []


def test_what_prefect_is_told_and_logs_holds_none(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    command = [sys.executable, "-m", "tests.faults.quoting_flow", str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    told = json.loads((tmp_path / "told.json").read_bytes())
    messages = [row["state"]["message"] for what in ("flow_runs", "task_runs") for row in told[what]]
    assert len(messages) == 3
    assert all("no answer to {" in message for message in messages)
    assert "refused: {" in json.dumps(told["logs"])  # the traceback of what it came from
    assert b"refused: {" in done.stderr  # what a worker's log gets
    for what, text in {"output": done.stdout, "log": done.stderr}.items():
        assert shown(text) == [], what
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "prefect.db" for path in files)
    for path in files:
        assert shown(path.read_bytes()) == [], path
