"""docs/security.md: each line has its test, and what it says of addresses holds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from flows.local.stack import Stack

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


def test_servers_of_ours_listen_on_loopback(tmp_path: Path) -> None:
    stack = Stack(tmp_path, 4200)
    assert stack.environment()["PREFECT_SERVER_API_HOST"] == "127.0.0.1"
    assert stack.api_url.startswith("http://127.0.0.1:")
    for name in ("stack", "temporary_server", "services"):
        source = Path(f"flows/local/{name}.py").read_text(encoding="utf-8")
        assert "0.0.0.0" not in source
        assert "127.0.0.1" in source


def test_compose_publishes_on_loopback() -> None:
    for path in Path("infra/docker").glob("compose*.yaml"):
        for name, service in (yaml.safe_load(path.read_text(encoding="utf-8")).get("services") or {}).items():
            for port in service.get("ports", []):
                assert str(port).startswith("127.0.0.1:"), f"{path}: {name} publishes {port}"
