"""How processes of ours end."""

from __future__ import annotations

import atexit
import gc
import signal


def end_soon() -> None:
    """Spare this process the search for garbage as it ends, and end it with the code that it has decided on.

    The interpreter looks at every object several times before it lets go of all of them: 1.7 s after the imports of a
    job, on pages that a forked process must copy for it, against 0.25 s without. Before that it gives its signals back
    to the system: a second Ctrl-C would kill a process that has just said how to go on, whose exit code is lost then.

    Exit functions that are registered after this, and so run before, can be interrupted as ever.
    """
    atexit.register(gc.freeze)
    atexit.register(_be_deaf)


def _be_deaf() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
