"""What a flow run is called in the Prefect UI: after the run of the store that it works on."""

from __future__ import annotations

import logging
import uuid

_log = logging.getLogger(__name__)


def name_flow_run(profile: str, run: str) -> None:
    """In a flow: put the name of the run, known only when its inputs have been read, in place of the profile's.

    A view, as artifacts are: if the server does not take it, the old name stays and the log says so.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectException
    from prefect.runtime import flow_run

    if flow_run.id is None:  # outside Prefect
        return
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(uuid.UUID(flow_run.id), name=renamed(flow_run.name or "", profile, run))
    except (PrefectException, httpx.HTTPError, OSError) as error:
        _log.warning("the flow run keeps its name (%s); the run goes on", type(error).__name__)


def renamed(name: str, profile: str, run: str) -> str:
    """As in "train quickstart-1a2b3c4d" for "train quickstart"; a name that has the run in it stays."""
    words = name.split(" ")
    if run in words:
        return name
    return (
        " ".join([run if word == profile else word for word in words]) if profile in words else f"{name} {run}".strip()
    )
