"""Ends the processes of an engine whose owner was killed. Run as a script, with the standard library alone."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOOK_S = 0.1


class Guard:
    """While it is held: if this process dies, however it dies, what it watches is killed and `folder` deleted."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-I", __file__, str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def watch(self, pid: int) -> None:
        """Kill `pid` too; -pid: all of the process group that `pid` leads."""
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # the guard was killed: there is nothing to tell it
                self._process.stdin.write(f"{pid}\n".encode())
                self._process.stdin.flush()

    @contextmanager
    def watching_new_children(self) -> Iterator[None]:
        """Watch every process that `multiprocessing` starts inside: a start that takes minutes may be killed too."""
        before, over = set(multiprocessing.active_children()), threading.Event()

        def look() -> None:
            known = set(before)
            while True:
                last = over.wait(_LOOK_S)
                for process in set(multiprocessing.active_children()) - known:
                    known.add(process)
                    self.watch(process.pid or 0)
                if last:
                    return

        thread = threading.Thread(target=look, name="guard", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def release(self) -> None:
        """Nothing happens any more."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()


def _main(folder: str) -> None:
    # The pipe ends when its only writer is gone.
    pids = [int(line) for line in sys.stdin]
    for pid in pids:
        with suppress(ProcessLookupError):
            if pid > 0 or pid < -1:  # 0 and -1 are whole crowds
                os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main(sys.argv[1])
