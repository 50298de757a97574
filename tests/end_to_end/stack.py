"""A real Prefect server and worker for tests, and a browser in front of them."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.local.stack import Stack, start, stop
from tests.browser import chromium
from tests.end_to_end.pipeline import PROJECT

_PATIENCE_MS = 120_000  # of a browser on a busy machine
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@contextmanager
def running_stack(folder: Path, *, s3: bool = False) -> Iterator[Stack]:
    """Server, worker and deployments on a free port, and S3 if wanted; stopped at the end."""
    stack = Stack(folder, free_port())
    try:
        start(stack, PROJECT, print, s3=s3)
        yield stack
    finally:
        stop(stack)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def call(stack: Stack, path: str, body: Any = None, method: str | None = None) -> Any:
    """POST `body`, or GET. As Prefect's own clients do, it asks a server again that says it is busy."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    for attempt in range(5):
        request = urllib.request.Request(f"{stack.api_url}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                told = answer.read()
                return json.loads(told) if told else None
        except urllib.error.HTTPError as error:
            if error.code != 503 or attempt == 4:
                raise
            time.sleep(2)
    raise AssertionError


def trigger(stack: Stack, deployment: str, config: dict[str, Any]) -> str:
    """Create a run of train/<deployment>; returns its id."""
    found = call(stack, f"/deployments/name/train/{deployment}")
    body = {"parameters": {"config": config}, "state": {"type": "SCHEDULED"}}
    return str(call(stack, f"/deployments/{found['id']}/create_flow_run", body)["id"])


def wait_for(stack: Stack, run: str, wanted: Callable[[dict[str, Any]], bool], seconds: float = 600) -> dict[str, Any]:
    """The flow run, as soon as it is as wanted."""
    deadline = time.monotonic() + seconds
    while True:
        found: dict[str, Any] = call(stack, f"/flow_runs/{run}")
        if wanted(found):
            return found
        assert time.monotonic() < deadline, (found["state"], tail(stack))
        time.sleep(0.5)


def ended(found: dict[str, Any]) -> bool:
    return found["state_type"] in FINAL


def task_states(stack: Stack, run: str) -> dict[str, str]:
    """Name of the last state of each task run."""
    rows = call(stack, "/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}, "limit": 200})
    return {row["name"]: row["state_name"] for row in sorted(rows, key=lambda r: r["start_time"] or "")}


def wait_until_reported(stack: Stack) -> None:
    """Until the worker has reported the end of a failed process: a retry before that would be overwritten by it."""
    deadline = time.monotonic() + 60
    while "exited with status code" not in (stack.folder / "worker.log").read_text(errors="replace"):
        assert time.monotonic() < deadline, tail(stack)
        time.sleep(0.5)
    time.sleep(2)


def tail(stack: Stack) -> str:
    return "\n".join((stack.folder / "worker.log").read_text(errors="replace").splitlines()[-30:])


@contextmanager
def browser_page(width: int = 1280, height: int = 900) -> Iterator[Any]:
    """A page in Chromium; skips where there is none."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(_PATIENCE_MS)
        yield page


def open_run_page(page: Any, stack: Stack, run: str, shown: str) -> None:
    """The run's page in the UI, once it shows the text `shown`."""
    page.goto(f"{stack.ui_url}/runs/flow-run/{run}")
    page.get_by_text(shown, exact=True).first.wait_for(timeout=_PATIENCE_MS)


def press_retry(page: Any, stack: Stack, run: str) -> None:
    """What a person does after a failure: open the run, press Retry, confirm."""
    page.goto(f"{stack.ui_url}/runs/flow-run/{run}")
    page.get_by_role("button", name="Retry").first.click(timeout=_PATIENCE_MS)
    page.get_by_role("dialog").get_by_role("button", name="Retry").click(timeout=_PATIENCE_MS)
    leave(page)


def press_cancel(page: Any, stack: Stack, run: str) -> None:
    """What a person does to stop a run: open it, press Cancel, confirm."""
    page.goto(f"{stack.ui_url}/runs/flow-run/{run}")
    page.get_by_role("button", name="Cancel").first.click(timeout=_PATIENCE_MS)
    page.get_by_role("dialog").get_by_role("button", name="Confirm").click(timeout=_PATIENCE_MS)
    leave(page)


def leave(page: Any) -> None:
    """Let the last request go out, and look at nothing: the moving page of a run costs most of a core to draw."""
    page.get_by_role("dialog").wait_for(state="hidden")
    page.goto("about:blank")


def take_picture(page: Any, path: Path) -> None:
    """The visible part of the page as a small PNG of 64 colours."""
    import io

    from PIL import Image

    page.wait_for_timeout(5000)  # graph and lists fill in one after the other
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
