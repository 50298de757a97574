"""A Prefect server for one command: its history stays in the store's folder, and it ends with the command, however
that ends. (Prefect's own temporary server outlives a killed parent.)
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cures_core.errors import ServerUnavailable
from cures_core.failures import Scene, explaining
from cures_core.files import write_atomic
from tasks.prefect_api import answers, require_server

_log = logging.getLogger(__name__)
START_DEADLINE_S = 120.0
_SEND_S = 5.0
_DATABASE = "prefect.db"
_PROBE_BYTES = 16 << 20
"""About what the server's database needs at first."""
_ENVIRONMENT = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}


@contextlib.contextmanager
def temporary_server(folder: Path) -> Iterator[None]:
    """Have a Prefect API while the block runs: the one that is configured, else a server with its files in `folder`.

    A database that is damaged there is set aside: it holds history alone. Raises `ServerUnavailable` if the configured
    server does not answer, or the temporary one not within two minutes; what the machine refuses it (a full disk,
    rights) is told as such.
    """
    if os.environ.get("PREFECT_API_URL"):
        _require_configured()
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "server.log").open("ab") as log, (folder / "server.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two first starts would both create the tables
        _set_damage_aside(folder / _DATABASE)
        server = _start(folder, log.fileno())
        try:
            # Prefect takes as long to import as the server to start, so that comes second. The server was in vain only
            # where a profile of Prefect's names another one.
            from prefect.settings import PREFECT_API_URL, temporary_settings

            if PREFECT_API_URL.value():
                server.kill()
                fcntl.flock(lock, fcntl.LOCK_UN)
                _require_configured()
                yield
                return
            url = _address(server, folder)
            fcntl.flock(lock, fcntl.LOCK_UN)
            with temporary_settings({PREFECT_API_URL: url}):
                try:
                    yield
                finally:
                    _send_what_waits()
        finally:
            server.kill()
            server.communicate()


def _send_what_waits() -> None:
    """Prefect sends log lines and events in batches, and at the end of the process tries for minutes to hand the last
    ones to a server that is gone."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=_SEND_S)


def _require_configured() -> None:
    from prefect.settings import PREFECT_API_URL

    if configured := PREFECT_API_URL.value():
        require_server(configured)


def _set_damage_aside(database: Path) -> None:
    """Keep a damaged database under another name, with what SQLite has beside it. Servers that still run go on with
    the files that they have open."""
    if not (database.exists() and _is_damaged(database)):
        return
    aside = next(p for n in itertools.count(1) if not (p := database.with_name(f"{_DATABASE}.damaged-{n}")).exists())
    for part in ("-wal", "-shm", ""):  # the database last: it is looked for
        with contextlib.suppress(FileNotFoundError):
            database.with_name(f"{_DATABASE}{part}").rename(aside.with_name(f"{aside.name}{part}"))
    _log.warning("%s: damaged; it is %s now, and Prefect's history of runs begins anew", database, aside.name)


def _is_damaged(database: Path) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(database)) as file:
            found: tuple[str] = file.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:  # a lock or a disk that refuses is for the server to tell
        return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return found != ("ok",)


def _start(folder: Path, log: int) -> subprocess.Popen[str]:
    database = f"sqlite+aiosqlite:///{folder.absolute() / _DATABASE}"
    return subprocess.Popen(
        [sys.executable, "-m", "flows.local.temporary_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, **_ENVIRONMENT, "PREFECT_SERVER_DATABASE_CONNECTION_URL": database},
        start_new_session=True,  # Ctrl-C is for the command, which still has to report its end here
    )


def _address(server: subprocess.Popen[str], folder: Path) -> str:
    """The API's address, as soon as it answers."""
    port = server.stdout.readline().strip() if server.stdout else ""
    url = f"http://127.0.0.1:{port}/api"
    deadline = time.monotonic() + START_DEADLINE_S
    while port and server.poll() is None and time.monotonic() < deadline:
        if _listens(int(port)) and answers(url):
            return url
        time.sleep(0.1)
    _try_to_write(folder)
    log = folder / "server.log"
    last_line = log.read_text(errors="replace").strip().splitlines()[-1:]
    raise ServerUnavailable(
        f"the temporary Prefect server did not come up ({''.join(last_line) or 'it said nothing'}); log: {log}"
    )


def _listens(port: int) -> bool:
    """Much cheaper to ask than whether it answers, and asked while the processor has the server to start."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _try_to_write(folder: Path) -> None:
    """The server has to write, and says little where it cannot; on a full disk its log is empty."""
    with explaining(Scene("the temporary Prefect server did not come up", str(folder))):
        write_atomic(folder / "probe", bytes(_PROBE_BYTES))
        (folder / "probe").unlink()


def _serve() -> None:
    """The server's process: tells its port on stdout, and ends when stdin does."""
    import uvicorn
    from prefect.server.api.server import create_app

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        threading.Thread(target=_die_with_parent, daemon=True).start()
        server = uvicorn.Server(uvicorn.Config(create_app(), log_level="error", lifespan="on"))
        server.run(sockets=[listener])


def _die_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    _serve()
