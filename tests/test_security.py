"""docs/security.md: each line has its test, and what it says of addresses holds."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import psutil
import pytest
import yaml

from cures_core.errors import MissingExtra
from cures_core.report import ReportData
from flows.cli.report import page_server
from flows.local import temporary_server
from flows.local.processes import process_id, stop_process
from flows.local.services import start_s3
from flows.local.stack import Stack, start, status, stop
from tests.end_to_end.conftest import open_folder as open_folder
from tests.end_to_end.pipeline import PROJECT
from tests.end_to_end.stack import free_port

TEXT = Path("docs/security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)))


def test_the_document_names_tests() -> None:
    assert len(NAMED) >= 20
    rows = [line for line in TEXT.split("## Not trusted")[1].split("##")[0].splitlines() if line.startswith("| ")]
    assert all("`tests/" in row for row in rows[1:]), "a line without a test"


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_exists(file: str, name: str) -> None:
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert not name or name in tests, f"{file} has no {name}"


def listening(pid: int) -> set[str]:
    """The addresses at which a process and those that it has started accept connections."""
    process = psutil.Process(pid)
    found = [one for each in (process, *process.children(recursive=True)) for one in each.net_connections("inet")]
    return {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}


def test_the_server_of_a_command_listens_on_loopback(tmp_path: Path) -> None:
    with (tmp_path / "server.log").open("ab") as log:
        server = temporary_server._start(tmp_path, log.fileno())
        try:
            temporary_server._address(server, tmp_path)
            assert listening(server.pid) == {"127.0.0.1"}
        finally:
            server.kill()
            server.communicate()


def test_the_page_of_a_report_is_served_on_loopback() -> None:
    with page_server(lambda: ReportData.model_validate({"run": "demo-1", "status": "running"}), 0):
        assert listening(os.getpid()) == {"127.0.0.1"}


@pytest.mark.end_to_end
def test_seaweed_listens_on_loopback(tmp_path: Path) -> None:
    try:
        start_s3(tmp_path)
    except MissingExtra as reason:
        pytest.skip(str(reason))
    try:
        pid = process_id(tmp_path, "s3")
        assert pid is not None
        assert listening(pid) == {"127.0.0.1"}
    finally:
        stop_process(tmp_path, "s3")


@pytest.mark.end_to_end
def test_every_part_of_a_stack_listens_on_loopback(open_folder: Path) -> None:
    stack = Stack(open_folder / "stack", free_port())
    try:
        start(stack, PROJECT, print, s3=True, postgres=True)
        found = {part.name: listening(part.pid) for part in status(stack) if part.pid is not None}
    finally:
        stop(stack)
    assert found == {"server": {"127.0.0.1"}, "worker": set(), "s3": {"127.0.0.1"}, "postgres": {"127.0.0.1"}}


def test_compose_publishes_on_loopback() -> None:
    for path in Path("infra/docker").glob("compose*.yaml"):
        for name, service in (yaml.safe_load(path.read_text(encoding="utf-8")).get("services") or {}).items():
            for port in service.get("ports", []):
                assert str(port).startswith("127.0.0.1:"), f"{path}: {name} publishes {port}"
