"""Starts jobs by forking a process that has done their imports: a job begins in milliseconds and not in seconds, and is
a process of its own all the same, which nothing of another job reaches.

Only for jobs without a GPU: CUDA does not bear a fork of a process that has asked for it, and imports may ask.

Not multiprocessing's forkserver, because that imports the parent's main module into every child, which is Prefect's
engine here, and leaves a child in its parent's session, without pipes of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import NamedTuple

from setproctitle import setproctitle

from cures_core.jobs.__main__ import main as run_job
from cures_core.jobs.parent import STOPS
from cures_core.process_end import end_soon
from cures_core.rewards.sandbox.confinement import die_with_parent

_FDS = 5
_AHEAD = (
    *(f"cures_core.jobs.{job}" for job in ("warm_start", "prior", "epoch", "evaluate")),
    "cures_core.policy.loading",
    "cures_core.rollout.hf.engine",
    "cures_core.training.torch_trainer",
    "transformers.models.llama.modeling_llama",  # of the warm start; others are imported where they are needed
)


class Request(NamedTuple):
    """What is asked for a job, as JSON in a file, of which a descriptor is sent with four others: what become its
    stdin, stdout and stderr, and where its process id and its exit code are told, a line each."""

    spec: str
    """Its job.json."""
    folder: str
    """That it works in."""
    environment: dict[str, str]


def main() -> int:
    """`python -m cures_core.jobs.forkserver FD`: serve what comes over the socket FD until its other end is closed."""
    setproctitle(f"{sys.executable} -m cures_core.jobs.forkserver")  # its library looks for the environment, once
    for number in STOPS:  # whoever stops all processes at once means the jobs, which have something to save
        signal.signal(number, signal.SIG_IGN)
    end_soon()
    spec = _serve(socket.socket(fileno=int(sys.argv[1])))
    return 0 if spec is None else run_job(spec)


def _serve(control: socket.socket) -> Path | None:
    """None at the end; in a job's process, the path of its job.json."""
    for name in _AHEAD:
        with contextlib.suppress(ImportError):  # a job that needs it says so in words
            importlib.import_module(name)
    running: dict[int, int] = {}
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is not control:
                _tell_end(selector, key, running)
                continue
            message, fds, _, _ = socket.recv_fds(control, 1, _FDS)
            if not message:
                return None
            asked, *standard, status = fds
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # a job hears what it is sent before it can answer
            if (pid := os.fork()) == 0:
                # That what tells of a job is closed is how its parent hears of the end of this server.
                ends = [key.fd for key in selector.get_map().values() if key.fileobj is not control]
                for fd in (*ends, *running.values(), status):
                    os.close(fd)
                selector.close()
                control.close()
                return _become_a_job(asked, standard)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            for fd in (asked, *standard):
                os.close(fd)
            running[pid] = status
            _tell(status, pid)
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, pid)


def _tell_end(selector: selectors.BaseSelector, key: selectors.SelectorKey, running: dict[int, int]) -> None:
    selector.unregister(key.fileobj)
    os.close(key.fd)
    _, how = os.waitpid(key.data, 0)
    status = running.pop(key.data)
    _tell(status, os.waitstatus_to_exitcode(how))
    os.close(status)


def _tell(status: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody waits any more
        os.write(status, f"{number}\n".encode())


def _become_a_job(file: int, standard: list[int]) -> Path:
    die_with_parent()  # nobody could tell the job's parent of its end
    with os.fdopen(file, "rb") as f:
        f.seek(0)
        asked = Request(*json.loads(f.read()))
    os.setsid()  # Ctrl-C reaches the parent alone, which then asks the job to stop
    for number, fd in enumerate(standard):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(asked.environment)
    os.chdir(asked.folder)
    sys.path[0] = asked.folder  # as of an interpreter that is started there
    setproctitle(f"{sys.executable} -m cures_core.jobs {asked.spec}")
    return Path(asked.spec)


if __name__ == "__main__":
    sys.exit(main())
