"""A job's ties to its parent: events out on stdout, stop requests in by signal, no life after the parent's death, nor
after its folder was given to another: a parent that stands still cannot stop a job whose work is done elsewhere by now.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import TextIO

from cures_core.errors import Preempted
from cures_core.events import JobEvent

STOPS = (signal.SIGTERM, signal.SIGINT)
"""What asks a job to save what it has and to end."""
_ORPHANED = 75
_LOOK_S = 0.5


class Parent:
    """Created once at the start of a job's process. The job ends where `spec`, its job.json, is taken away."""

    def __init__(self, spec: Path | None = None) -> None:
        # Libraries may print: their text goes to stderr, the pipe to the parent stays clean.
        self.events: TextIO = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self._stop = threading.Event()
        for number in STOPS:
            signal.signal(number, lambda *_: self._stop.set())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # blocked while it was forked
        threading.Thread(target=self._die_with_parent, daemon=True).start()
        if spec is not None:
            threading.Thread(target=_die_with, args=(spec.absolute(), spec.stat().st_ino), daemon=True).start()

    @property
    def stop_requested(self) -> bool:
        return self._stop.is_set()

    def emit(self, event: JobEvent) -> None:
        """Tell the parent."""
        print(event.model_dump_json(), file=self.events, flush=True)

    def stop_if_asked(self, done: str) -> None:
        """Raise `Preempted` after a stop request; call it where everything done so far is saved."""
        if self.stop_requested:
            raise Preempted(f"asked to stop; saved {done}")

    def _die_with_parent(self) -> None:
        # Not sys.stdin: its lock would be held when the interpreter ends. Empty when the parent closes its end or dies.
        while os.read(0, 4096):
            pass
        os._exit(_ORPHANED)


def _die_with(spec: Path, inode: int) -> None:
    """End this process once the file is gone or another one: the next holder of the stage has taken the folder over."""
    while True:
        time.sleep(_LOOK_S)
        try:
            if spec.stat().st_ino == inode:
                continue
        except FileNotFoundError:
            pass
        except OSError:  # a file system that does not answer for a while
            continue
        os._exit(_ORPHANED)
