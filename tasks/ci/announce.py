"""Tells a Prefect server that the prompts have changed, and waits for the run that follows."""

from __future__ import annotations

import datetime as dt
import os
import time
import uuid
from collections.abc import Mapping
from typing import Any

from cures_core.errors import ConfigError, CuresError
from tasks.prefect_api import call, check_api_url

EVENT = "prompts.dataset.changed"
DEPLOYMENT = "retrain-on-data-change"
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_POLL_S = 2.0


def announce(api_url: str, key: str, data_path: str, start_from: str) -> None:
    """Emit the event. The trigger is bucketed by `key`: a day long, equal ones start one run however often they come.

    Raises `ServerUnavailable` if the server does not take it.
    """
    now = dt.datetime.now(dt.UTC).isoformat()
    event = {
        "id": str(uuid.uuid4()),
        "event": EVENT,
        "occurred": now,
        "resource": {"prefect.resource.id": f"cures.prompts.{key}", "prefect.resource.name": data_path},
        "related": [],
        "payload": {"key": key, "data_path": data_path, "start_from": start_from},
    }
    call(api_url, "/events", [event])


def wait_for_run(api_url: str, key: str, seconds: float) -> Mapping[str, Any]:
    """The flow run that `key` started, once it has ended. `CuresError` if none has ended in time."""
    deadline = time.monotonic() + seconds
    seen = "no run was created"
    while time.monotonic() < deadline:
        for run in runs_of(api_url, key):
            seen = f"run {run['name']} ({run['id']}) is {run['state_name']}"
            if run["state_type"] in FINAL:
                return run
        time.sleep(_POLL_S)
    raise CuresError(f"change {key}: after {seconds:.0f} s {seen}. Is the deployment {DEPLOYMENT} there, and a worker?")


def runs_of(api_url: str, key: str) -> list[dict[str, Any]]:
    """Flow runs of the deployment that carry the key, the latest first."""
    body = {"deployments": {"name": {"any_": [DEPLOYMENT]}}, "limit": 200, "sort": "EXPECTED_START_TIME_DESC"}
    return [run for run in call(api_url, "/flow_runs/filter", body) if run["parameters"].get("key") == key]


def api_url() -> str:
    """PREFECT_API_URL. Raises `ConfigError` where it is not set."""
    url = check_api_url(os.environ.get("PREFECT_API_URL", ""))
    if not url:
        raise ConfigError("PREFECT_API_URL is not set: name the server, as in http://127.0.0.1:4200/api")
    return url.rstrip("/")
