"""`python -m cures_core.jobs.rank REPORTS START_TIMEOUT [JOB.json]`: one rank of a distributed job.

Rank 0 is given the job and tells the others; every rank leaves the error it ends with in REPORTS/<rank>.json.
"""

from __future__ import annotations

import datetime as dt
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

from cures_core.distributed import World, losing_ranks
from cures_core.errors import ConfigError
from cures_core.failure_report import run_reporting
from cures_core.failures import Scene, explaining
from cures_core.jobs.parent import Parent
from cures_core.jobs.scene import scene_of
from cures_core.jobs.spec import Job
from cures_core.process_end import end_soon
from cures_core.secrets import mask_logs


def main() -> int:
    end_soon()
    reports, start_timeout_s = Path(sys.argv[1]), float(sys.argv[2])
    rank = int(os.environ["RANK"])
    mask_logs()
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s [{rank}] %(name)s: %(message)s")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    parent = Parent()
    report = reports / f"{rank}.json"
    return run_reporting(lambda: _work(reports, rank, start_timeout_s, parent), report, Scene("the ranks' meeting"))


def _work(reports: Path, rank: int, start_timeout_s: float, parent: Parent) -> None:
    world = join(reports, start_timeout_s)
    described = Job.model_validate_json(Path(sys.argv[3]).read_bytes()).model_dump(mode="json") if rank == 0 else None
    job = Job.model_validate(world.share(described, "the job"))
    with explaining(scene_of(job)):
        module = importlib.import_module(f"cures_core.jobs.{job.name}")
        if rank == 0:
            module.run(job, parent, world)
        else:
            module.follow(job, world)


def join(reports: Path, start_timeout_s: float) -> World:
    """Meet the other ranks. Raises `RankLost` naming those that are missing, `ConfigError` for a mix of devices."""
    import torch
    import torch.distributed as dist

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    start, wait = (dt.timedelta(seconds=float(s)) for s in (start_timeout_s, os.environ["CURES_WAIT_TIMEOUT_S"]))
    store = _store(reports, rank, size, start)
    # Before the process group: its own timeout would not say who is missing, and is meant for the work.
    store.set(f"here/{rank}", "1")

    def missing(_: str) -> str:
        ranks = [other for other in range(size) if not store.check([f"here/{other}"])]
        return f"waited {start_timeout_s:g} s for ranks {ranks} of {size} to start"

    with losing_ranks(missing):
        store.wait([f"here/{other}" for other in range(size)], start)
    on_gpu = torch.cuda.is_available()
    # Messages are CPU tensors on either: NCCL alone could not carry them.
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=wait)
    world = World(rank, size, dist.group.WORLD)
    count = int(world.sum_(torch.tensor([int(on_gpu)]), "the others' devices"))
    if count not in (0, size):
        raise ConfigError(f"{count} of {size} ranks see a GPU: training.processes is more than a node's GPUs")
    return world


def _store(reports: Path, rank: int, size: int, start: dt.timedelta) -> Any:
    """Where ranks find each other: a file on one machine, so that nothing listens; a port of the first of several."""
    from torch.distributed import FileStore, TCPStore  # type: ignore[attr-defined]

    host = os.environ.get("MASTER_ADDR")
    if not host:
        return FileStore(str(reports / "meeting"), size)
    port = int(os.environ["MASTER_PORT"])
    with losing_ranks(lambda reason: f"no rank 0 at {host}:{port}: {reason}"):
        return TCPStore(host, port, size, rank == 0, start, wait_for_workers=False)


if __name__ == "__main__":
    sys.exit(main())
