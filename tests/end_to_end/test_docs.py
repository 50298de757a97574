"""Commands of docs/operations.md, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.pipeline import PROJECT, cures, write_profile

PAGE = (PROJECT / "docs" / "operations.md").read_text()


@pytest.mark.end_to_end
def test_a_snapshot_is_read_without_this_project(tmp_path: Path) -> None:
    outcome = cures("run", "--config", write_profile(tmp_path), "--json", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    run = outcome.summary["run"]
    found = re.search(r"A snapshot is read without this project.*?:\n\n((?:    .*\n)+)", PAGE)
    assert found is not None
    script = re.sub(r"^    ", "", found[1], flags=re.M).replace("RUN", run)
    # The tools of this environment, not the project: another folder, and no path to it.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"posterior/{run}/2" in done.stdout  # git tag
    assert f'"parent": "posterior/{run}/1"' in done.stdout  # lineage
    assert re.search(r"^plus +\d", done.stdout, re.M)  # a source's mean pass rates


def test_every_picture_and_file_that_the_pages_name_is_there() -> None:
    for page in (*(PROJECT / "docs").glob("*.md"), PROJECT / "README.md", PROJECT / "ARCHITECTURE.md"):
        for name in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / name).exists(), f"{page.name}: {name}"
    for path in (PROJECT / "docs" / "images").glob("*.png"):
        assert path.stat().st_size < 150_000, f"{path.name} is too large"
