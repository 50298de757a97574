"""Starts the ranks of a distributed job on this machine, watches them, and names the one that failed. No torch here."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cures_core.config.training import RanksConfig
from cures_core.errors import ChildFailed, CuresError, RankLost, UnexpectedError
from cures_core.failure_report import read_report
from cures_core.failures import Ended, Scene, failure_of
from cures_core.jobs.scene import GO_ON
from cures_core.oom_kills import oom_kills

_RANK = ("-m", "cures_core.jobs.rank")
_LOOK_S = 0.1
_GRACE_S = 10.0
"""How long the others may take to say why they end after one rank has ended with an error."""
_LEAVE_S = 60.0
"""How long the others may take to end after rank 0 has ended well."""


class Ranks:
    """The ranks of one node as child processes. If this process dies, however it dies, they end themselves."""

    def __init__(
        self, cfg: RanksConfig, node: int, reports: Path, *, on_gpu: bool, rank_0: tuple[Path, Any] | None
    ) -> None:
        """`rank_0`: the job's file and where its standard output goes; None on all nodes but the first."""
        shutil.rmtree(reports, ignore_errors=True)
        reports.mkdir(parents=True)
        self._reports, self._oom_kills = reports, oom_kills()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        for local in range(cfg.processes):
            rank = node * cfg.processes + local
            command, out = [sys.executable, *_RANK, str(reports), str(cfg.start_timeout_s)], sys.stderr.fileno()
            if rank_0 is not None and rank == 0:
                command, out = [*command, str(rank_0[0])], rank_0[1]
            self._processes[rank] = subprocess.Popen(
                command,
                env=_environment(rank, local, cfg, on_gpu=on_gpu),
                stdin=subprocess.PIPE,  # its end tells the rank that this process is gone
                stdout=out,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which passes it on to rank 0
            )

    def wait(self, stop_requested: Callable[[], bool]) -> CuresError | None:
        """Until all have ended: the error of the one that is the cause, or None. A stop request is passed on to rank 0.

        After the first one that fails the others are killed; those who only lost another rank are not the cause.
        """
        codes: dict[int, int] = {}
        deadline, asked = math.inf, False
        while len(codes) < len(self._processes):
            for rank, process in self._processes.items():
                if rank not in codes and (code := process.poll()) is not None:
                    codes[rank] = code
                    # The ranks that wait for a lost one fail next: the grace lets all say what they know.
                    if code != 0 or rank == 0:
                        deadline = min(deadline, time.monotonic() + (_LEAVE_S if code == 0 else _GRACE_S))
            if not asked and stop_requested() and 0 in self._processes and 0 not in codes:
                self._processes[0].send_signal(signal.SIGTERM)
                asked = True
            if time.monotonic() > deadline:
                break
            time.sleep(_LOOK_S)
        self.kill()
        return self._verdict(codes)

    def kill(self) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def _verdict(self, codes: dict[int, int]) -> CuresError | None:
        """`codes` are those of ranks that ended by themselves, in the order of their end."""
        bad = {rank: code for rank, code in codes.items() if code != 0}
        if not bad or codes.get(0) == 0:  # without the others rank 0 could not have come to its end
            return None
        reports = {rank: read_report(self._reports / f"{rank}.json") for rank in bad}
        causes = {rank: self._error(rank, code, reports[rank]) for rank, code in bad.items()}
        first = min(causes, key=lambda rank: _consequence(causes[rank], bad[rank]))  # of equal ones the first to end
        return causes[first]

    def _error(self, rank: int, code: int, reported: CuresError | None) -> CuresError:
        if reported is None:
            ended = Ended(code, for_memory=oom_kills() > self._oom_kills)
            return failure_of(ended, Scene(self._name(rank), str(self._reports), GO_ON))
        return (
            type(reported)(f"{self._name(rank)}: {reported}")
            if rank and not isinstance(reported, RankLost)
            else reported
        )

    def _name(self, rank: int) -> str:
        return f"rank {rank} of {len(self._processes)}"


def _consequence(error: CuresError, code: int) -> int:
    """How likely a rank failed only because another one did: 0 not at all."""
    if isinstance(error, RankLost):
        return 3
    if isinstance(error, ChildFailed) and code > 0:  # it left without a word
        return 2
    return 1 if isinstance(error, UnexpectedError) else 0  # such as a library's when a connection is cut


def _environment(rank: int, local: int, cfg: RanksConfig, *, on_gpu: bool) -> dict[str, str]:
    """Environment of a rank, by the names that torch and DeepSpeed read. It sees one GPU, its own, as the first."""
    place = {name: value for name, value in os.environ.items() if name not in ("MASTER_ADDR", "MASTER_PORT")}
    place |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(cfg.nodes * cfg.processes),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": str(cfg.processes),
        "CURES_WAIT_TIMEOUT_S": str(cfg.wait_timeout_s),
    }
    if cfg.nodes > 1:
        place["MASTER_ADDR"], _, place["MASTER_PORT"] = cfg.address.rpartition(":")
    else:  # the ranks meet in a file and speak over the loopback
        place["GLOO_SOCKET_IFNAME"] = "lo"
    if on_gpu:
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        names = visible or [str(i) for i in range(cfg.processes)]
        place["CUDA_VISIBLE_DEVICES"] = names[local] if local < len(names) else ""
    return place
