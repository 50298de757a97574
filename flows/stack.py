"""The local stack: a Prefect server with its UI and a worker, as background processes with one folder of state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cures_core.errors import ConfigError, EngineFailed
from cures_core.files import canonical_json, write_atomic
from tasks.storage.lease import process_start

POOL = "cures"
START_DEADLINE_S = 90.0
STOP_GRACE_S = 30.0
HEARTBEAT_S = 30
ZOMBIES = "cures: runs without a heartbeat have crashed"


@dataclass(frozen=True)
class Stack:
    """Where the stack lives: `folder` for state and logs, `port` of the server on the loopback interface."""

    folder: Path
    port: int = 4200

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def ui_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """What server, worker and clients of this stack have to share."""
        home = self.folder.absolute() / "prefect"
        return {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_SERVER_UI_API_URL": self.api_url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_LOCAL_STORAGE_PATH": str(home / "storage"),
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
            "DO_NOT_TRACK": "1",
        }


def start(stack: Stack, project: Path, say: Callable[[str], None]) -> None:
    """Start what does not run yet and deploy everything in `project`/prefect.yaml.

    Raises `ConfigError` where there is no such file or the port is taken by something else, `EngineFailed` where a
    process does not come up in 90 s.
    """
    if not (project / "prefect.yaml").is_file():
        raise ConfigError(f"{project}: no prefect.yaml there; run this in a checkout of the project")
    if not _running(stack, "server"):
        if _answers(stack):
            raise ConfigError(f"port {stack.port} is taken by another server; choose one with --port")
        _spawn(
            stack, "server", ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(stack.port)], project
        )
        _wait_until(lambda: _answers(stack), stack, "server")
    say(f"server  {stack.ui_url}")
    _prefect(stack, project, "work-pool", "create", POOL, "--type", "process", "--overwrite")
    _prefect(stack, project, "--no-prompt", "deploy", "--all")
    say("deployed the flows of prefect.yaml")
    _watch_for_zombies(stack)
    if not _running(stack, "worker"):
        _spawn(stack, "worker", ["prefect", "worker", "start", "--pool", POOL], project)
    say(f"worker  pool {POOL}; logs in {stack.folder}")


def stop(stack: Stack) -> list[str]:
    """Stop worker and server, if they run; returns the names of those that did."""
    stopped = []
    for name in ("worker", "server"):
        process = _read(stack, name)
        if process is not None and _alive(process):
            os.killpg(process["pid"], signal.SIGTERM)
            if not _ends(process, STOP_GRACE_S):
                os.killpg(process["pid"], signal.SIGKILL)
            stopped.append(name)
        _pid_file(stack, name).unlink(missing_ok=True)
    return stopped


def _watch_for_zombies(stack: Stack) -> None:
    """Without this, a run whose machine died stays Running for ever, holds its slot, and cannot be retried."""
    there = _call(stack, "/automations/filter", {"automations": {"name": {"any_": [ZOMBIES]}}})
    if there:
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
    _call(stack, "/automations/", {"name": ZOMBIES, "enabled": True, "trigger": trigger, "actions": [action]})


def _call(stack: Stack, path: str, body: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{stack.api_url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise EngineFailed(f"{path}: the server answered {error.code}: {error.read()[:500].decode()}") from error


def _spawn(stack: Stack, name: str, command: list[str], project: Path) -> None:
    stack.folder.mkdir(parents=True, exist_ok=True)
    log = stack.folder / f"{name}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=project,
            env={**os.environ, **stack.environment()},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    write_atomic(_pid_file(stack, name), canonical_json({"pid": process.pid, "started": process_start(process.pid)}))


def _prefect(stack: Stack, project: Path, *arguments: str) -> None:
    environment = {**os.environ, **stack.environment()}
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise ConfigError(f"prefect {' '.join(arguments)} failed:\n{said}")


def _wait_until(true: Callable[[], bool], stack: Stack, name: str) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while not true():
        if time.monotonic() > deadline or not _running(stack, name):
            tail = "\n".join((stack.folder / f"{name}.log").read_text(errors="replace").splitlines()[-8:])
            raise EngineFailed(f"the {name} did not come up; the end of {stack.folder / name}.log:\n{tail}")
        time.sleep(0.3)


def _answers(stack: Stack) -> bool:
    try:
        with urllib.request.urlopen(f"{stack.api_url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _running(stack: Stack, name: str) -> bool:
    process = _read(stack, name)
    return process is not None and _alive(process)


def _read(stack: Stack, name: str) -> dict[str, Any] | None:
    path = _pid_file(stack, name)
    return json.loads(path.read_bytes()) if path.exists() else None


def _pid_file(stack: Stack, name: str) -> Path:
    return stack.folder / f"{name}.json"


def _alive(process: Mapping[str, Any]) -> bool:
    """The same process, not another one that got its number."""
    return bool(process_start(process["pid"]) == process["started"])


def _ends(process: Mapping[str, Any], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _alive(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not _alive(process)
