"""Imports DeepSpeed and has it compile what it needs, one process at a time: its own lock outlives a killed process."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cures_core.config.training import DeepSpeedTrainerConfig
from cures_core.errors import RankLost
from cures_core.extras import missing_extra

_LOOK_S = 0.2
_log = logging.getLogger(__name__)


def prepare_deepspeed(cfg: DeepSpeedTrainerConfig) -> Any:
    """The module `deepspeed`, with its compiled parts loaded and its communication started.

    Raises `MissingExtra`, and `RankLost` where another process compiles for longer than `start_timeout_s`.
    """
    folder = Path(os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(extensions_folder())))
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # ninja
    try:
        import deepspeed
        import deepspeed.ops.adam
    except ImportError as error:
        raise missing_extra("deepspeed", "training.type = 'deepspeed'", error) from error
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if cfg.offload_optimizer:
        from deepspeed.ops.op_builder import CPUAdamBuilder

        with alone_in(folder, cfg.start_timeout_s):
            CPUAdamBuilder().load(verbose=False)
    # Its own reductions through shared memory wait for a dead rank for ever; without them gloo is used.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed()
    return deepspeed


def extensions_folder() -> Path:
    """Where compiled parts are kept: one folder for each Python environment."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "cures" / "torch_extensions" / hashlib.sha256(sys.prefix.encode()).hexdigest()[:12]


@contextmanager
def alone_in(folder: Path, limit_s: float) -> Iterator[None]:
    """Hold the folder; locks in it are then of processes that were killed, and a start would wait for them for ever."""
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + limit_s
    with (folder / ".cures-lock").open("w") as held:  # let go by the system when the process ends, however it ends
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise RankLost(f"waited {limit_s:g} s for another process to compile in {folder}") from error
                time.sleep(_LOOK_S)
        for stale in folder.glob("*/lock"):
            _log.warning("%s: left by a killed process; removed", stale)
            stale.unlink()
        yield
