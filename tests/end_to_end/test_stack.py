"""`cures up --s3 --postgres`, `status`, `deploy`, `down`, with the real servers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL

from cures_core.errors import ConfigError, MissingExtra
from flows.local import services
from flows.local.deploying import IMAGE_FOLDER, POOL, QUEUE, automation, watches
from flows.local.stack import Stack
from flows.local.temporary_server import temporary_server
from tasks.prefect_api import call as post
from tests.end_to_end.pipeline import PROJECT, cures
from tests.end_to_end.stack import call

pytestmark = pytest.mark.end_to_end


def automations(stack: Stack) -> list[dict[str, Any]]:
    """Those of `cures deploy`, in its order."""
    names = [watch.name for watch in watches("process")]
    found = call(stack, "/automations/filter", {"automations": {"name": {"any_": names}}})
    return sorted(found, key=lambda row: names.index(row["name"]))


def test_server_worker_s3_and_postgres_come_up_are_deployed_to_and_stop(open_folder: Path) -> None:
    folder = open_folder / "stack"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = ("--dir", folder)
    try:
        up = cures("up", *place, "--port", port, "--s3", "--postgres", cwd=PROJECT)
        assert up.code == 0, up.err
        shown = cures("status", *place, "--json", cwd=PROJECT)
        parts = json.loads(shown.out)
        assert {part["name"] for part in parts if part["running"]} == {"server", "worker", "s3", "postgres"}
        assert shown.code == 0
        assert f"server  http://127.0.0.1:{port}\n" in cures("up", *place, cwd=PROJECT).out  # nothing is started anew
        assert "leave --port away" in cures("up", *place, "--port", port + 1, cwd=PROJECT).err
        stack = Stack(folder, port)
        env = stack.environment()
        assert "postgresql" in env["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
        assert not (folder / "prefect" / "prefect.db").exists()  # the state is in Postgres
        secrets = [env["AWS_SECRET_ACCESS_KEY"], json.loads((folder / "postgres-access.json").read_bytes())["password"]]
        assert not any(secret in text for secret in secrets for text in (up.out, up.err, shown.out, shown.err))
        for note in ("s3-access.json", "postgres-access.json", "s3-identities.json", "variables.sh"):
            assert stat.S_IMODE((folder / note).stat().st_mode) == 0o600
        checked = cures("doctor", "--store", "s3://cures/check", "--json", cwd=PROJECT, env=env)
        (store,) = [found for found in json.loads(checked.out) if found["name"] == "store"]
        assert store["status"] == "ok", store  # it has conditional writes
        (shell,) = [line.removeprefix("shell   ") for line in up.out.splitlines() if line.startswith("shell")]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        plain = {"PATH": path, "PYTHONPATH": str(PROJECT), "HOME": str(open_folder)}
        typed = subprocess.run(  # as it is printed, but that nothing is trained
            ["sh", "-c", f"{shell} --check"], cwd=PROJECT, env=plain, capture_output=True, text=True, check=False
        )
        assert typed.returncode == 0, typed.stdout + typed.stderr
        assert "s3://cures/runs" in typed.stdout
        before = automations(stack)
        assert sorted(row["name"] for row in before) == sorted(watch.name for watch in watches("process"))
        assert cures("deploy", "--api-url", stack.api_url, cwd=PROJECT, env=env).code == 0
        assert automations(stack) == before  # deploying again changes nothing
        earlier = automation(replace(watches("process")[0], within_s=77))
        call(stack, f"/automations/{before[0]['id']}", earlier, "PUT")
        assert cures("deploy", "--api-url", stack.api_url, cwd=PROJECT, env=env).code == 0
        assert [row["trigger"]["within"] for row in automations(stack)] == [row["trigger"]["within"] for row in before]
        for kind in ("docker", "kubernetes"):  # Prefect's own check of the templates
            template = PROJECT / "infra" / "work-pools" / f"{kind}.json"
            body = {"name": f"a-{kind}", "type": kind, "base_job_template": json.loads(template.read_bytes())}
            assert call(stack, "/work_pools/", body)["type"] == kind
    finally:
        down = cures("down", "--dir", folder, cwd=PROJECT)
    assert down.out.split() == ["stopped", "worker", "and", "server", "and", "s3", "and", "postgres"]
    assert cures("status", *place, cwd=PROJECT).code == 1


def test_runs_in_containers_start_in_the_images_folder(tmp_path: Path) -> None:
    with temporary_server(tmp_path):
        url = str(PREFECT_API_URL.value())
        done = cures("deploy", "--api-url", url, "--pool-type", "kubernetes", cwd=PROJECT)
        assert done.code == 0, done.err
        found = {row["name"]: row for row in post(url, "/deployments/filter", {})}
        assert set(found) == {"train", "train-nightly", "retrain-on-data-change", "evaluate", "doctor"}
        step = {"prefect.deployments.steps.set_working_directory": {"directory": IMAGE_FOLDER}}
        assert all(row["pull_steps"] == [step] for row in found.values())
        assert found["train"]["parameters"]["config"]["name"] == "quickstart"  # the rest is as prefect.yaml has it
        assert found["train-nightly"]["schedules"][0]["active"]
        trains = {name for name, row in found.items() if row["work_queue_name"] == QUEUE}
        assert trains == {"train", "train-nightly", "retrain-on-data-change"}
        queues = {row["name"]: row["concurrency_limit"] for row in post(url, f"/work_pools/{POOL}/queues/filter", {})}
        assert queues == {"default": None, QUEUE: 1}
        pools = post(url, "/work_pools/filter", {})
        assert [(pool["name"], pool["type"]) for pool in pools] == [(POOL, "kubernetes")]


def test_deploy_says_which_server_it_misses(tmp_path: Path) -> None:
    nobody = cures("deploy", "--api-url", "http://127.0.0.1:9/api", cwd=PROJECT)
    assert nobody.code == 1
    assert "no Prefect server answers at http://127.0.0.1:9/api" in nobody.err
    unnamed = cures("deploy", cwd=PROJECT, env={"PREFECT_API_URL": ""})
    assert unnamed.code == 2
    assert "--api-url" in unnamed.err


def test_missing_programs_are_named_with_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(MissingExtra, match=r"cures\[s3-server\]"):
        services.start_s3(tmp_path)
    with pytest.raises(ConfigError, match="apt-get install postgresql"):
        services.start_postgres(tmp_path)
