"""Secrets of the environment on a stack with S3, through a failure that quotes them: they turn up nowhere else."""

from __future__ import annotations

import json
import tomllib
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.prefect_api import call as post
from tasks.storage.s3_client import make_client
from tests.end_to_end.pipeline import PROFILE
from tests.end_to_end.stack import call, ended, running_stack, trigger, wait_for, wait_until_reported
from tests.faults.invariants import CANARIES, spellings
from tests.written import git_objects, unpacked

pytestmark = pytest.mark.end_to_end

IN_A_URL = "canary-in-a-url-4f9c1e"
REFUSED = (
    ("store", "endpoint_url", f"http://user:{IN_A_URL}@127.0.0.1:9000"),
    ("tracking", "mlflow", f"https://{IN_A_URL}@mlflow.example.org"),
    ("snapshot", "repository", f"https://user:{IN_A_URL}@git.example.org/x.git"),
    ("data", "path", f"s3://KEY:{IN_A_URL}@bucket/set.jsonl"),
    ("data", "path", f"https://host.example.org/set.jsonl?access_key={IN_A_URL}"),
    ("store", "url", f"https://host.example.org/#token={IN_A_URL}"),
)
KEPT_FOR_THE_STACK = {"s3-access.json", "s3-identities.json", "variables.sh"}


def test_a_secret_of_the_environment_is_found_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    with running_stack(tmp_path / "stack", s3=True) as stack:
        env = stack.environment()
        config = {
            **tomllib.loads(PROFILE),
            "epochs": 1,
            "store": {"url": "s3://cures/runs", "scratch": str(tmp_path / "scratch")},
            "snapshot": {"repository": str(tmp_path / "snapshots.git")},
            "curriculum": {
                "type": "custom",
                "strategy": "tests.end_to_end.quoting:QuotesSecretsOnce",
                "prompts_per_step": 16,
                "rollouts_per_step": 32,
                "options": {"done": str(tmp_path / "done"), "names": " ".join(CANARIES)},
            },
        }
        for key, name, url in REFUSED:
            table = {**dict(config.get(key) or {}), name: url}
            with pytest.raises(urllib.error.HTTPError):  # by the server: its database must not hold it
                trigger(stack, "train", {**config, key: table})
        run = trigger(stack, "train", config)
        failed = wait_for(stack, run, ended)
        assert failed["state_type"] == "FAILED"
        assert "no answer to" in failed["state"]["message"]  # and what was quoted there is looked for below
        wait_until_reported(stack)
        retry = {"type": "SCHEDULED", "name": "AwaitingRetry"}
        call(stack, f"/flow_runs/{run}/set_state", {"state": retry})
        done = wait_for(stack, run, lambda r: r["run_count"] > 1 and ended(r))
        assert done["state_type"] == "COMPLETED", done["state"]

        secrets = {**CANARIES, "URL": IN_A_URL, "AWS_SECRET_ACCESS_KEY": env["AWS_SECRET_ACCESS_KEY"]}
        for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            monkeypatch.setenv(name, env[name])
        looked_at = 0
        for place, data in (
            *files_of(tmp_path),
            *objects_of("cures"),
            *commits_of(tmp_path / "snapshots.git"),
            *answers_of(stack.api_url, run),
        ):
            looked_at += 1
            for name, secret in secrets.items():
                for spelling in spellings(secret):
                    assert spelling not in data, f"{name} in {place}"
        assert looked_at > 100


def files_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Logs, the server's database, scratch work, reports; not where the stack's own keys are meant to be."""
    for path in folder.rglob("*"):
        if path.name in KEPT_FOR_THE_STACK:
            assert path.stat().st_mode & 0o077 == 0, path
        elif path.is_file():
            data = path.read_bytes()
            yield str(path), data
            for part in unpacked(data):
                yield f"{path}, unpacked", part


def objects_of(bucket: str) -> Iterator[tuple[str, bytes]]:
    """Records, manifests, checkpoints, reports, snapshots' data."""
    client = make_client(None, attempts=3)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    for key in [item["Key"] for page in pages for item in page["Contents"]]:
        data = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        yield f"s3://{bucket}/{key}", data
        for part in unpacked(data):
            yield f"s3://{bucket}/{key}, unpacked", part


def commits_of(repository: Path) -> Iterator[tuple[str, bytes]]:
    found = git_objects(repository)
    assert b"posterior" in found
    yield str(repository), found


def answers_of(api_url: str, run: str) -> Iterator[tuple[str, bytes]]:
    """What the UI shows of the run: its state and parameters, its log, its artifacts."""
    for path, body in (
        ("/flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}}),
        ("/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}}),
        ("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}}),
        ("/events/filter", {"filter": {"any_resource": {"id": [f"prefect.flow-run.{run}"]}}}),
    ):
        found = post(api_url, path, body)
        assert found, path
        yield path, json.dumps(found, ensure_ascii=False).encode()
