"""Deploys the flows to a Prefect server: the work pool, prefect.yaml, and the automations that find dead runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cures_core.errors import ConfigError, ServerUnavailable
from tasks.prefect_api import PATIENCE_S, answers, call

POOL = "cures"
QUEUE = "training"
HEARTBEAT_S = 30
RUN_SETTINGS = {
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),  # Prefect's own 180 s would be too late for `watches`
    "PREFECT_CLIENT_MAX_RETRIES": "8",  # a run waits 8 minutes for a server that is away
}
"""What a run has to have in its environment, whoever starts it: a worker (`infra/work-pools`) or `cures run`."""
IMAGE_FOLDER = "/opt/cures"
PoolType = Literal["process", "docker", "kubernetes"]
BEGIN_S: dict[PoolType, int] = {"process": 300, "docker": 1800, "kubernetes": 3600}
"""How long a run that a worker has taken may take to begin: an image may have to be fetched, a GPU waited for."""
CANCEL_S = 300
"""How long a cancellation may take: a step to its end, and 30 s to save."""

_AGAIN = "deploy again: what was made is found, and not made twice"
ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


@dataclass(frozen=True)
class Watch:
    """An automation: after one of some events of a run another is expected in time, else the run's state is changed.
    One that is expected too makes the time begin anew.

    Without them a run whose worker or machine is gone holds its slot of the queue for ever, and cannot be retried.
    """

    name: str
    after: tuple[str, ...]
    expect: tuple[str, ...]
    within_s: int
    state: str
    message: str


def watches(pool_type: PoolType) -> tuple[Watch, ...]:
    """Every way in which a run may stay where it is. Prefect lets none of them change a run that has ended."""
    return (
        Watch(
            "cures: runs without a heartbeat have crashed",
            ("Running", "heartbeat"),  # Running comes first: a process may be killed before it has sent a heartbeat
            ("Running", "heartbeat", *ENDS),
            3 * HEARTBEAT_S,
            "CRASHED",
            "no heartbeat: its process or machine is gone. Press Retry to go on from its last checkpoint",
        ),
        Watch(
            "cures: runs that were taken and did not begin have crashed",
            ("Pending",),
            ("Running", "heartbeat", "Scheduled", "Late", "AwaitingRetry", "Cancelling", *ENDS),
            BEGIN_S[pool_type],
            "CRASHED",
            "a worker has taken it and it did not begin: the worker is gone, or cannot start it. Press Retry",
        ),
        Watch(
            "cures: runs whose cancellation nobody carries out are cancelled",
            ("Cancelling",),
            ENDS,
            CANCEL_S,
            "CANCELLED",
            "nobody has ended it: its worker is gone, or hears nothing (start it anew). Retry goes on from its last "
            "checkpoint",
        ),
    )


def deploy(
    api_url: str,
    project: Path,
    environment: Mapping[str, str],
    report: Callable[[str], None],
    pool_type: PoolType = "process",
) -> None:
    """Create or update pool, deployments and automations; doing it again changes nothing.

    Raises `ConfigError` where there is no prefect.yaml or Prefect refuses it, `ServerUnavailable` where no server
    answers, `CuresError` with what the server refuses.
    """
    if not (project / "prefect.yaml").is_file():
        raise ConfigError(f"{project}: no prefect.yaml there; run this in a checkout of the project")
    if not answers(api_url, PATIENCE_S):
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
    watch_runs(api_url, pool_type)


def _one_training_at_a_time(api_url: str) -> None:
    limit = {"name": QUEUE, "concurrency_limit": 1}
    if call(api_url, f"/work_pools/{POOL}/queues/filter", {"work_queues": {"name": {"any_": [QUEUE]}}}):
        call(api_url, f"/work_pools/{POOL}/queues/{QUEUE}", limit, "PATCH")
    else:
        call(api_url, f"/work_pools/{POOL}/queues", limit, look=_AGAIN)


def _run_from_image(api_url: str) -> None:
    """Containers find the project where the image has it, not where it lies on the machine that deploys."""
    step = {"prefect.deployments.steps.set_working_directory": {"directory": IMAGE_FOLDER}}
    for found in call(api_url, "/deployments/filter", {"work_pools": {"name": {"any_": [POOL]}}}):
        call(api_url, f"/deployments/{found['id']}", {"pull_steps": [step]}, "PATCH")


def watch_runs(api_url: str, pool_type: PoolType = "process") -> None:
    """Make the automations that the server does not have yet, and bring up to date those that an earlier version made.

    One that is as it should be is left alone, for a change forgets what it waits for; who was switched off stays off.
    """
    for watch in watches(pool_type):
        wanted = automation(watch)
        found = call(api_url, "/automations/filter", {"automations": {"name": {"any_": [watch.name]}}})
        if not found:
            call(api_url, "/automations/", wanted, look=_AGAIN)
        for one in found:
            if not _holds(one, {part: wanted[part] for part in ("trigger", "actions")}):
                call(api_url, f"/automations/{one['id']}", {**wanted, "enabled": one["enabled"]}, "PUT")


def _holds(found: Any, wanted: Any) -> bool:
    """Does what the server tells say all that is wanted? It adds fields, and lists what are sets in its own order."""
    if isinstance(wanted, dict):
        return all(_holds(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list) and wanted and isinstance(wanted[0], dict):
        return len(found) == len(wanted) and all(map(_holds, found, wanted))
    if isinstance(wanted, list):
        return sorted(found if isinstance(found, list) else [found]) == sorted(wanted)
    return bool(found == wanted)


def automation(watch: Watch) -> dict[str, Any]:
    """As Prefect's API takes it."""
    trigger = {
        "type": "event",
        "posture": "Proactive",
        "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
        "for_each": ["prefect.resource.id"],
        "after": [f"prefect.flow-run.{name}" for name in watch.after],
        "expect": [f"prefect.flow-run.{name}" for name in watch.expect],
        "within": watch.within_s,
        "threshold": 1,
    }
    action = {"type": "change-flow-run-state", "state": watch.state, "message": watch.message}
    return {"name": watch.name, "enabled": True, "trigger": trigger, "actions": [action]}


def _prefect(project: Path, environment: Mapping[str, str], *arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise ConfigError(f"prefect {' '.join(arguments)} failed:\n{output}")
