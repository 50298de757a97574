"""The other nodes of a distributed run: wait for an epoch to start at the first node, then bring this node's ranks."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cures_core.config.training import RanksConfig
from cures_core.jobs.launch import Ranks

_LOOK_S = 0.5


def join_epochs(cfg: RanksConfig, node: int, idle_s: float, *, on_gpu: bool, report: Callable[[str], None]) -> None:
    """Take part in every epoch that starts at `cfg.address`; return after `idle_s` seconds without one.

    `report` gets what became of each. An epoch that fails here fails on the first node too, which may start it again.
    """
    while _wait(lambda: _accepts_connections(cfg.address), idle_s):
        with tempfile.TemporaryDirectory(prefix="cures-ranks-") as folder:
            ranks = Ranks(cfg, node, Path(folder) / "reports", on_gpu=on_gpu, rank_0=None)
            try:
                error = ranks.wait(lambda: False)
            finally:
                ranks.kill()
        report("epoch done" if error is None else f"epoch failed ({type(error).__name__}): {error}")
        # Until the same epoch, which is about to end, has ended.
        _wait(lambda: not _accepts_connections(cfg.address), cfg.wait_timeout_s)


def _wait(condition: Callable[[], bool], limit_s: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True


def _accepts_connections(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except OSError:
        return False
