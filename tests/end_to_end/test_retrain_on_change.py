"""A merge in a repository with a bare remote tells a real Prefect server, and one run comes of it."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path

import pytest

from tasks.ci.announce import runs_of
from tasks.runs.notes import read_started
from tasks.storage import LocalStore
from tests.end_to_end.pipeline import PROFILE
from tests.end_to_end.stack import call, ended, running_stack, wait_for
from tests.tasks.ci.repository import commit, git, make_repository, sums, write_rows
from tests.tasks.ci.test_changes import run_script

pytestmark = pytest.mark.end_to_end


def test_ten_equal_triggers_make_one_run(tmp_path: Path) -> None:
    work = make_repository(tmp_path / "theirs")
    write_rows(work / "prompts.jsonl", sums(range(100, 310)))
    commit(work, "ten more")
    git(tmp_path, "clone", "-q", str(tmp_path / "theirs" / "remote.git"), str(tmp_path / "theirs" / "ci"))
    ci = tmp_path / "theirs" / "ci"
    profile = (ci / "tiny.toml").read_text()  # the worker of this test has no checkout of theirs
    (ci / "tiny.toml").write_text(profile.replace('"suite.jsonl"', json.dumps(str(ci / "suite.jsonl"))))
    with running_stack(tmp_path / "stack") as stack:
        found = call(stack, "/deployments/name/retrain/retrain-on-data-change")
        config = {**tomllib.loads(PROFILE), "store": {"url": str(tmp_path / ".cures")}, "epochs": 1}  # CI judges two
        call(stack, f"/deployments/{found['id']}", {"parameters": {"config": config}}, "PATCH")
        variables = {
            "CURES_BASE": "HEAD~1",
            "CURES_CONFIG": "tiny.toml",
            "PREFECT_API_URL": stack.api_url,
            "CURES_DATA_PATH": str(ci / "prompts.jsonl"),
        }
        time.sleep(5)  # the server reads its automations anew
        keys = set()
        for _ in range(9):
            done = run_script("merge.sh", ci, **variables)
            assert done.returncode == 0, done.stderr
            keys.add(json.loads(done.stdout)["key"])
        last = run_script("merge.sh", ci, **variables, CURES_WAIT_S="240")
        assert last.returncode == 0, last.stderr
        told = json.loads(last.stdout)
        assert told["state"] == "COMPLETED"
        assert (told["event"], told["deployment"]) == ("prompts.dataset.changed", "retrain/retrain-on-data-change")
        assert told["url"] == f"{stack.ui_url}/runs/flow-run/{told['flow_run']}"
        (key,) = keys
        time.sleep(5)
        (run,) = runs_of(stack.api_url, key)
        assert run["parameters"]["data_path"] == str(ci / "prompts.jsonl")
        assert key in run["name"]
        assert run["parameters"]["judged"]["epochs"] == 2

        name = json.loads(next((tmp_path / ".cures" / "runs").glob("*/status.json")).read_bytes())
        assert name["status"] == "completed"
        run_name = next((tmp_path / ".cures" / "runs").iterdir()).name
        assert read_started(LocalStore(tmp_path / ".cures"), run_name).config["epochs"] == 2
        score = call(stack, "/deployments/name/evaluate/evaluate")
        body = {"parameters": {"run": run_name, "epoch": 1, "store": config["store"]}, "state": {"type": "SCHEDULED"}}
        evaluated = call(stack, f"/deployments/{score['id']}/create_flow_run", body)["id"]
        doctor = call(stack, "/deployments/name/doctor/doctor")
        examined = call(stack, f"/deployments/{doctor['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]
        for flow_run in (evaluated, examined):
            done_run = wait_for(stack, flow_run, ended)
            assert done_run["state_type"] == "COMPLETED", done_run["state"]
        shown = call(stack, "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
        kinds = {a["type"] for a in shown}
        assert kinds == {"table", "markdown", "progress"}
        assert any("data:image/svg+xml" in str(a["data"]) for a in shown)
        artifacts = call(stack, "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [examined]}}})
        assert "python" in artifacts[0]["data"]
