"""The processes that import much end without looking for garbage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.pipeline import PROJECT

_HELPER = "from cures_core.process_end import end_soon; end_soon()"
_JOB = """
from pathlib import Path
from cures_core.jobs.__main__ import main
spec = Path("job.json")
spec.write_text("no job")
main(spec)
"""
_COMMAND = """
import contextlib
from flows.command import main
sys.argv = ["cures", "--help"]
with contextlib.suppress(SystemExit):
    main()
"""
_GARBAGE = """
import gc, os, sys

class Garbage:
    def __init__(self):
        self.cycle = self

    def __del__(self, write=os.write):
        write(2, b"looked for")

{}
gc.disable()
Garbage()
os.write(2, b"the end;")
"""


def _end(code: str, folder: Path) -> str:
    """What a process says that runs `code` and leaves garbage, from its end on."""
    theirs, ours = os.pipe()  # a job whose parent's end is closed would end at once
    try:
        done = subprocess.run(
            [sys.executable, "-c", _GARBAGE.format(code)],
            stdin=theirs,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        os.close(theirs)
        os.close(ours)
    return done.stderr.partition("the end;")[2]


def test_without_it_garbage_is_looked_for(tmp_path: Path) -> None:
    assert _end("", tmp_path) == "looked for"


@pytest.mark.parametrize("code", [_HELPER, _JOB, _COMMAND], ids=["helper", "job", "command"])
def test_with_it_it_is_not(code: str, tmp_path: Path) -> None:
    assert _end(code, tmp_path) == ""


def test_exit_functions_run_all_the_same(tmp_path: Path) -> None:
    assert _end(f"{_HELPER}\nimport atexit\natexit.register(os.write, 2, b'ended')", tmp_path) == "ended"


_DECIDED = f"""
{_HELPER}
import numpy, signal, sys
signal.signal(signal.SIGINT, lambda *_: None)
signal.signal(signal.SIGTERM, lambda *_: None)
print("decided", flush=True)
sys.exit(75)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_in_its_last_moments_leave_it_its_exit_code(number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", _DECIDED], stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert process.stdout is not None
    assert process.stdout.readline() == "decided\n"
    while process.poll() is None:  # the interpreter gives its handlers back before it lets go of what is imported
        process.send_signal(number)
        time.sleep(0.0005)
    assert process.returncode == 75
