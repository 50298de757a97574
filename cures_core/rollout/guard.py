"""Ends the processes of an engine whose owner was killed. Run as a script, with the standard library alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


class Guard:
    """While it is held: if this process dies, however it dies, `pids` are killed and `folder` is deleted."""

    def __init__(self, pids: Sequence[int], folder: Path) -> None:
        command = [sys.executable, "-I", __file__, str(folder), *map(str, pids)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def release(self) -> None:
        """Nothing happens any more."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def _main(folder: str, pids: Sequence[str]) -> None:
    # The pipe ends when its only writer is gone: nothing is ever written.
    while os.read(0, 4096):
        pass
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2:])
