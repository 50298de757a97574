"""The processes that import much end without looking for garbage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.pipeline import PROJECT

_CYCLE = """
import gc, os, sys

class Garbage:
    def __init__(self):
        self.cycle = self

    def __del__(self, write=os.write):
        write(1, b"looked for")

{}
gc.disable()
Garbage()
"""


def _end(code: str, folder: Path = PROJECT) -> str:
    theirs, ours = os.pipe()  # a job whose parent's end is closed would end at once
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CYCLE.format(code)],
            stdin=theirs,
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(theirs)
        os.close(ours)
    assert "Traceback" not in done.stderr
    return done.stdout


def test_without_it_garbage_is_looked_for() -> None:
    assert _end("") == "looked for"


@pytest.mark.parametrize(
    "code",
    [
        "from cures_core.process_end import end_soon; end_soon()",
        "from pathlib import Path; from cures_core.jobs.__main__ import main\nspec = Path('job.json'); spec.write_text('no job'); main(spec)",
        "from flows.command import main\nsys.argv = ['cures', '--help']\ntry: main()\nexcept SystemExit: print(end='')",
    ],
    ids=["helper", "job", "command"],
)
def test_with_it_it_is_not(code: str, tmp_path: Path) -> None:
    assert "looked for" not in _end(code, tmp_path)


def test_exit_functions_run_all_the_same() -> None:
    code = "import atexit; from cures_core.process_end import end_soon; end_soon(); atexit.register(print, 'ended')"
    assert _end(code) == "ended\n"
