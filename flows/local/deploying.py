"""Deploys the flows to a Prefect server: the work pool, prefect.yaml, and the automation that finds dead runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from cures_core.errors import ConfigError, ServerUnavailable
from tasks.prefect_api import answers, call

POOL = "cures"
QUEUE = "training"
HEARTBEAT_S = 30
IMAGE_FOLDER = "/opt/cures"
ZOMBIES = "cures: runs without a heartbeat have crashed"
PoolType = Literal["process", "docker", "kubernetes"]


def deploy(
    api_url: str,
    project: Path,
    environment: Mapping[str, str],
    report: Callable[[str], None],
    pool_type: PoolType = "process",
) -> None:
    """Create or update pool, deployments and automation; doing it again changes nothing.

    Raises `ConfigError` where there is no prefect.yaml or Prefect refuses it, `ServerUnavailable` where no server
    answers, `CuresError` with what the server refuses.
    """
    if not (project / "prefect.yaml").is_file():
        raise ConfigError(f"{project}: no prefect.yaml there; run this in a checkout of the project")
    if not answers(api_url):
        raise ServerUnavailable(f"no Prefect server answers at {api_url}; start it, or name another with --api-url")
    env = {**os.environ, **environment, "PREFECT_API_URL": api_url}
    template = project / "infra" / "work-pools" / f"{pool_type}.json"
    of_type = ["--type", pool_type, "--base-job-template", str(template)]
    _prefect(project, env, "work-pool", "create", POOL, *of_type, "--overwrite")
    _one_training_at_a_time(api_url)
    _prefect(project, env, "--no-prompt", "deploy", "--all")
    if pool_type != "process":
        _run_from_image(api_url)
    report("deployed the flows of prefect.yaml")
    watch_for_zombies(api_url)


def _one_training_at_a_time(api_url: str) -> None:
    limit = {"name": QUEUE, "concurrency_limit": 1}
    if call(api_url, f"/work_pools/{POOL}/queues/filter", {"work_queues": {"name": {"any_": [QUEUE]}}}):
        call(api_url, f"/work_pools/{POOL}/queues/{QUEUE}", limit, "PATCH")
    else:
        call(api_url, f"/work_pools/{POOL}/queues", limit)


def _run_from_image(api_url: str) -> None:
    """Containers find the project where the image has it, not where it lies on the machine that deploys."""
    step = {"prefect.deployments.steps.set_working_directory": {"directory": IMAGE_FOLDER}}
    for found in call(api_url, "/deployments/filter", {"work_pools": {"name": {"any_": [POOL]}}}):
        call(api_url, f"/deployments/{found['id']}", {"pull_steps": [step]}, "PATCH")


def watch_for_zombies(api_url: str) -> None:
    """Without this, a run whose machine died stays Running for ever, holds its slot, and cannot be retried."""
    if call(api_url, "/automations/filter", {"automations": {"name": {"any_": [ZOMBIES]}}}):
        return
    ends = [f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")]
    trigger = {
        "type": "event",
        "posture": "Proactive",
        "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
        "for_each": ["prefect.resource.id"],
        "after": ["prefect.flow-run.heartbeat"],
        "expect": ["prefect.flow-run.heartbeat", *ends],
        "within": 3 * HEARTBEAT_S,
        "threshold": 1,
    }
    action = {
        "type": "change-flow-run-state",
        "state": "CRASHED",
        "message": "no heartbeat: its process or machine is gone. Press Retry to go on from its last checkpoint",
    }
    call(api_url, "/automations/", {"name": ZOMBIES, "enabled": True, "trigger": trigger, "actions": [action]})


def _prefect(project: Path, environment: Mapping[str, str], *arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise ConfigError(f"prefect {' '.join(arguments)} failed:\n{output}")
