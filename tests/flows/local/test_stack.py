"""What the local stack tells a person's own shell."""

from __future__ import annotations

import subprocess
from pathlib import Path

from flows.local.services import S3_NOTE, write_private
from flows.local.stack import Stack


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
