"""What the local stack tells a person's own shell."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.local import stack as module
from flows.local.processes import spawn, stop_process
from flows.local.services import S3_NOTE, write_private
from flows.local.stack import Stack, start
from tests.end_to_end.pipeline import PROJECT
from tests.end_to_end.stack import free_port


def test_a_shell_takes_the_stack_s_variables_from_a_private_file(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "a folder", 4321)
    write_private(stack.folder / S3_NOTE, b'{"port": 1234, "id": "me", "key": "it\'s $HOME secret"}')
    stack.write_variables()
    assert stack.variables.stat().st_mode & 0o777 == 0o600
    told = subprocess.run(
        ["sh", "-c", '. "$0" && env', str(stack.variables)], env={}, capture_output=True, text=True, check=True
    )
    found = dict(line.split("=", 1) for line in told.stdout.splitlines())
    assert found["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"
    assert found["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1234"
    assert found["AWS_SECRET_ACCESS_KEY"] == "it's $HOME secret"
    assert not any(name.startswith("PREFECT_SERVER") for name in found)


SERVER = """
import http.server, sys
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of a stack whose server says that it is healthy, and whose worker waits; its deployments are only counted."""

    def spawn_instead(stack: Stack, name: str, *_: Any) -> None:
        does = [SERVER, str(stack.port)] if name == "server" else ["import time; time.sleep(600)"]
        spawn(stack.folder, name, [sys.executable, "-c", *does], port=stack.port)

    monkeypatch.setattr(module, "_spawn_prefect", spawn_instead)
    monkeypatch.setattr(module, "deploy", lambda api_url, *_: (tmp_path / "deployed").open("a").write(f"{api_url}\n"))
    monkeypatch.chdir(PROJECT)
    yield tmp_path / "stack"
    for name in ("worker", "server"):
        stop_process(tmp_path / "stack", name)


def typed(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_stack_is_found_on_the_port_that_it_was_started_with(folder: Path, tmp_path: Path) -> None:
    port = free_port()
    assert typed("up", "--dir", folder, "--port", port).exit_code == 0
    shown = typed("status", "--dir", folder)
    assert shown.exit_code == 0, shown.output
    assert f"http://127.0.0.1:{port}" in shown.output
    before = json.loads((folder / "server.json").read_bytes())
    again = typed("up", "--dir", folder)
    assert f"open http://127.0.0.1:{port}/deployments" in again.output
    assert (tmp_path / "deployed").read_text().split() == [f"http://127.0.0.1:{port}/api"] * 2
    assert json.loads((folder / "server.json").read_bytes()) == before
    other = typed("up", "--dir", folder, "--port", port + 1)
    assert isinstance(other.exception, Exception)
    assert f"runs with port {port}, not {port + 1}: leave --port away" in str(other.exception)
    assert typed("down", "--dir", folder).output == "stopped worker and server\n"
    assert typed("status", "--dir", folder).exit_code == 1


def test_a_stack_that_was_killed_comes_up_where_it_was(folder: Path) -> None:
    port = free_port()
    start(Stack(folder, port), PROJECT, lambda _: None)
    for name in ("worker", "server"):
        noted = (folder / f"{name}.json").read_bytes()
        stop_process(folder, name)
        (folder / f"{name}.json").write_bytes(noted)  # as a machine leaves it that was switched off
    assert f"http://127.0.0.1:{port}" in typed("status", "--dir", folder).output
    assert Stack.at(folder).port == port
    assert Stack.at(folder, 4377).port == 4377
    assert Stack.at(folder / "another").port == 4200
