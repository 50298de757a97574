"""Several ranks in one process: threads that speak through real gloo groups on the loopback."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch.distributed as dist

from cures_core.distributed import World


def in_ranks(size: int, work: Callable[[World], Any], timeout_s: float = 60.0) -> list[Any]:
    """Results of `work(world)` on `size` ranks."""
    store: Any = dist.HashStore()  # type: ignore[attr-defined]

    def run(rank: int) -> Any:
        options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._timeout = dt.timedelta(seconds=timeout_s)
        options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]  # type: ignore[attr-defined]
        return work(World(rank, size, dist.ProcessGroupGloo(store, rank, size, options)))  # type: ignore[attr-defined]

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size)))
