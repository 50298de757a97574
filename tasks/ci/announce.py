"""Tells a Prefect server that the prompts have changed, and waits for the run that follows."""

from __future__ import annotations

import datetime as dt
import os
import time
import uuid
from collections.abc import Mapping
from typing import Any

from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError, RunIncomplete, ServerRefused, ServerUnavailable
from tasks.prefect_api import call, check_api_url

EVENT = "prompts.dataset.changed"
FLOW, DEPLOYMENT = "retrain", "retrain-on-data-change"
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_POLL_S = 2.0


def announce(api_url: str, key: str, config: RunConfig, data_path: str, start_from: str) -> str:
    """Emit the event, which carries the configuration: what CI has judged is what trains. Returns the address of the
    deployment that it starts, in the UI.

    The trigger is bucketed by `key`: a day long, equal ones start one run however often they come. Raises
    `ServerRefused` where the deployment is not there, or does not take the configuration, `ServerUnavailable` if the
    server does not take the event.
    """
    try:
        deployment = call(api_url, f"/deployments/name/{FLOW}/{DEPLOYMENT}", None, "GET")
    except ServerRefused as error:
        raise ServerRefused(
            f"{api_url} has no deployment {FLOW}/{DEPLOYMENT}, so nothing would come of the event ({error}). "
            f"Deploy it: cures deploy --api-url {api_url}"
        ) from error
    judged = config.model_dump(mode="json")
    _require_taken(api_url, deployment["parameter_openapi_schema"], judged)
    now = dt.datetime.now(dt.UTC).isoformat()
    event = {
        "id": str(uuid.uuid4()),
        "event": EVENT,
        "occurred": now,
        "resource": {"prefect.resource.id": f"cures.prompts.{key}", "prefect.resource.name": data_path},
        "related": [],
        "payload": {
            "key": key,
            "data_path": data_path,
            "start_from": start_from,
            "config": judged,
        },
    }
    call(api_url, "/events", [event], repeatable=True)  # under one id, and equal ones start one run
    return page_of("deployment", deployment["id"])


def _require_taken(api_url: str, schema: dict[str, Any], judged: Mapping[str, Any]) -> None:
    """Here, because the server would refuse to create the run in its own log alone."""
    from prefect.utilities.schema_tools.validation import validate

    for fault in validate({"judged": judged}, schema, ignore_required=True):
        while fault.context:  # of several forms the one that fits farthest
            fault = max(fault.context, key=lambda one: len(one.absolute_path))
        place = ".".join(str(key) for key in list(fault.absolute_path)[1:])
        raise ServerRefused(
            f"{api_url}: {FLOW}/{DEPLOYMENT} does not take this configuration: {place}: {fault.message}. Announce with "
            f"the version of this package that the workers have, or deploy this one: cures deploy --api-url {api_url}"
        )


def page_of(kind: str, id: str) -> str:
    """The page of a deployment or flow run in the UI of the server that PREFECT_API_URL names; "" where it has none."""
    from prefect.utilities.urls import url_for

    return url_for(kind, obj_id=id) or ""


def wait_for_run(api_url: str, key: str, seconds: float) -> Mapping[str, Any]:
    """The flow run that `key` started, once it has ended. `RunIncomplete` if none has ended in time."""
    deadline = time.monotonic() + seconds
    seen = "no run was created"
    while time.monotonic() < deadline:
        try:
            found = runs_of(api_url, key)
        except ServerUnavailable as error:  # it may come back while the run goes on
            found, seen = [], str(error)
        for run in found:
            seen = f"run {run['name']} ({run['id']}) is {run['state_name']}"
            if run["state_type"] in FINAL:
                return run
        time.sleep(_POLL_S)
    raise RunIncomplete(
        f"change {key}: after {seconds:.0f} s {seen}. Is the deployment {DEPLOYMENT} there, and a worker?"
    )


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
