"""The local stack: a Prefect server with its UI, a worker, and S3 and Postgres if wanted, with one folder of state."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cures_core.config.base import Strict
from cures_core.errors import ConfigError
from flows.local.deploying import POOL, RUN_SETTINGS, deploy
from flows.local.processes import noted_port, process_id, spawn, stop_process, wait_until
from flows.local.services import BUCKET, service_environment, start_postgres, start_s3, write_private
from tasks.prefect_api import answers

PORT = 4200
STOP_ORDER = ("worker", "server", "s3", "postgres")


class Part(Strict):
    """One process of the stack."""

    name: str
    running: bool
    pid: int | None
    """None where it does not run."""
    address: str
    log: str


@dataclass(frozen=True)
class Stack:
    """Where the stack lives: `folder` for state and logs, `port` of the server on the loopback interface."""

    folder: Path
    port: int = PORT

    @classmethod
    def at(cls, folder: Path, port: int | None = None) -> Stack:
        """The stack in a folder: on the port that its server was started with, unless another is named."""
        return cls(folder, port or noted_port(folder, "server") or PORT)

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
            **RUN_SETTINGS,
            "DO_NOT_TRACK": "1",
            **service_environment(self.folder),
        }

    @property
    def variables(self) -> Path:
        """The file for a shell that is to reach the stack as its worker does: `. FILE`. Only its owner can read it."""
        return self.folder / "variables.sh"

    def write_variables(self) -> None:
        """Write that file anew."""
        shared = {name: value for name, value in self.environment().items() if _is_clients(name)}
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in shared.items()]
        write_private(self.variables, "".join(lines).encode())


def _is_clients(name: str) -> bool:
    return name == "PREFECT_API_URL" or name.startswith("AWS_")


def start(
    stack: Stack, project: Path, report: Callable[[str], None], *, s3: bool = False, postgres: bool = False
) -> None:
    """Start what does not run yet and deploy everything in `project`/prefect.yaml.

    A stack that was started with S3 or Postgres once keeps them. Raises `ConfigError` where there is no such file, a
    program is missing, the port is taken by something else or parts of the stack run on another, `ServerUnavailable`
    where a process does not come up in 90 s.
    """
    if not (project / "prefect.yaml").is_file():
        raise ConfigError(f"{project}: no prefect.yaml there; run this in a checkout of the project")
    _require_one_port(stack)
    known = service_environment(stack.folder)
    if postgres or "PREFECT_SERVER_DATABASE_CONNECTION_URL" in known:
        report(f"postgres {start_postgres(stack.folder)}")
    if s3 or "AWS_ENDPOINT_URL" in known:
        report(f"s3      {start_s3(stack.folder)}, bucket {BUCKET}")
    if process_id(stack.folder, "server") is None:
        if answers(stack.api_url):
            raise ConfigError(f"port {stack.port} is taken by another server; choose one with --port")
        command = ["server", "start", "--host", "127.0.0.1", "--port", str(stack.port)]
        _spawn_prefect(stack, "server", command, project)
        wait_until(lambda: answers(stack.api_url), stack.folder, "server")
    report(f"server  {stack.ui_url}")
    deploy(stack.api_url, project, stack.environment(), report)
    if process_id(stack.folder, "worker") is None:
        _spawn_prefect(stack, "worker", ["worker", "start", "--pool", POOL], project)
    report(f"worker  pool {POOL}; logs in {stack.folder}")
    stack.write_variables()
    typed = f". {shlex.quote(str(stack.variables))} && cures run --config configs/quickstart.toml"
    if "AWS_ENDPOINT_URL" in stack.environment():
        pointers = shlex.quote(str(stack.folder / "snapshots.git"))  # git cannot keep a repository in S3
        typed += f" --set store.url=s3://{BUCKET}/runs --set snapshot.repository={pointers}"
    report(f"shell   {typed}")


def _require_one_port(stack: Stack) -> None:
    for name in ("server", "worker"):
        port = noted_port(stack.folder, name)
        if process_id(stack.folder, name) is not None and port not in (None, stack.port):
            raise ConfigError(
                f"{stack.folder}: the stack's {name} runs with port {port}, not {stack.port}: leave --port away, or "
                f"stop it with cures down --dir {shlex.quote(str(stack.folder))}"
            )


def stop(stack: Stack) -> list[str]:
    """Stop what runs; returns the names of those that did."""
    how = {"postgres": signal.SIGINT}  # its "fast shutdown"
    return [name for name in STOP_ORDER if stop_process(stack.folder, name, how.get(name, signal.SIGTERM))]


def status(stack: Stack) -> list[Part]:
    """Every part that this stack consists of, the optional ones only if it has been started with them."""
    env = service_environment(stack.folder)
    addresses = {"server": stack.ui_url, "worker": f"pool {POOL}"}
    if "AWS_ENDPOINT_URL" in env:
        addresses["s3"] = env["AWS_ENDPOINT_URL"]
    if "PREFECT_SERVER_DATABASE_CONNECTION_URL" in env:
        addresses["postgres"] = env["PREFECT_SERVER_DATABASE_CONNECTION_URL"].partition("@")[2]
    found = []
    for name, address in addresses.items():
        pid = process_id(stack.folder, name)
        up = pid is not None and (name != "server" or answers(stack.api_url))
        found.append(Part(name=name, running=up, pid=pid, address=address, log=str(stack.folder / f"{name}.log")))
    return found


def _spawn_prefect(stack: Stack, name: str, arguments: list[str], project: Path) -> None:
    command = [sys.executable, "-m", "prefect", *arguments]
    spawn(stack.folder, name, command, cwd=project, env=stack.environment(), port=stack.port)
