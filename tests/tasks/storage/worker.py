"""A process for the lease tests: takes the lease, commits one record, and stops or dies before a given store operation.

Usage: python -m tests.tasks.storage.worker ROOT LABEL TTL [SIGNAL OPERATION]
Operations are counted from 0 once the lease is held. Prints `held TOKEN`, then `committed True|False`.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from cures_core.errors import CuresError
from tasks.storage import LocalStore
from tasks.storage.lease import Lease


class Watched:
    """A store that sends its own process a signal before one of its operations."""

    def __init__(self, store: LocalStore, number: int, operation: int) -> None:
        self._store, self._signal, self._left = store, number, operation

    def __getattr__(self, name: str) -> Any:
        if name in ("get", "put_if_absent", "compare_and_swap"):
            self._left -= 1
            if self._left == -1:
                os.kill(os.getpid(), self._signal)
        return getattr(self._store, name)


def main(root: str, label: str, ttl: str, *fault: str) -> int:
    store = LocalStore(root)
    try:
        lease = Lease(store, "run", float(ttl))
        print("held", lease.token, flush=True)
        if fault:
            lease._store = Watched(store, int(signal.Signals[fault[0]]), int(fault[1]))  # type: ignore[assignment]
        print("committed", lease.commit("record", label.encode()), flush=True)
        lease.close()
    except CuresError as error:
        print(type(error).__name__, error, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
