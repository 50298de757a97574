"""One holder a run, and one a stage in progress, with a fencing token: who was paused past its lease cannot commit.

The lease is one value in the store: token, holder, machine, process, and a beat that grows while the holder lives.
Age is judged by monotonic clocks only. On the holder's own machine the beat carries that clock, and a dead process is
seen at once; from elsewhere an observer has to watch the beat stand still for the lease's time to live.
"""

from __future__ import annotations

import getpass
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from cures_core.errors import CuresError, LeaseHeld, LeaseLost
from cures_core.machine import machine_id
from tasks.storage.base import Store
from tasks.storage.fencing import (
    Held,
    check_token,
    commit,
    describe_lease,
    encode,
    first_token,
    lease_key,
    parse,
    settle,
    swap,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """A process, as a lease names it. `machine` is where its process id and its monotonic clock mean something."""

    label: str
    machine: str
    pid: int
    started: str | None


def this_process() -> Holder:
    """The calling process."""
    pid = os.getpid()
    return Holder(f"{_user()}@{socket.gethostname()} (process {pid})", machine_id(), pid, process_start(pid))


class Lease:
    """Acquire on creation, beat from a thread, release on `close`. Raises `LeaseHeld` naming the holder.

    `lost` is called, from that thread, once a beat has shown that another process has taken over.
    """

    def __init__(self, store: Store, name: str, ttl_s: float, lost: Callable[[], None] | None = None) -> None:
        self._store, self._name, self._ttl, self._lost = store, name, ttl_s, lost
        self.token = acquire(store, name, ttl_s, this_process())
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_closed, name=f"lease of {name}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `LeaseLost` if another process holds it now."""
        check_token(self._store, self._name, self.token)

    def commit(self, key: str, data: bytes, expected: bytes | None = None) -> bool:
        """See `fencing.commit`."""
        return commit(self._store, self._name, self.token, key, data, expected)

    def close(self) -> None:
        """Give it back. Safe to call twice, and where the store is gone: the lease then runs out by itself."""
        self._closed.set()
        self._thread.join()
        try:
            release(self._store, self._name, self.token)
        except CuresError as error:
            what = describe_lease(self._name)
            _log.warning("the lease of %s was not given back (%s); it ends %.0f s from now", what, error, self._ttl)

    def _beat_until_closed(self) -> None:
        while not self._closed.wait(self._ttl / 4):
            try:
                beat(self._store, self._name, self.token)
            except LeaseLost as error:
                _log.error("%s", error)  # the next commit is refused
                if self._lost is not None:
                    self._lost()
                return
            except CuresError as error:  # the store is away or refuses for now
                _log.warning("no sign of life could be written for %s: %s", describe_lease(self._name), error)


def acquire(
    store: Store,
    name: str,
    ttl_s: float,
    me: Holder,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Become the holder and return the new fencing token; waits at most about `ttl_s` for a silent holder elsewhere.

    Raises `LeaseHeld` as soon as the holder is known to live.
    """
    watched: bytes | None = None
    since = clock()
    while True:
        raw, held = parse(store, name)
        if held is None or held.holder is None or _is_dead(held, me, ttl_s, clock()):
            free = True
        elif me.machine == held.machine or (watched is not None and raw != watched):
            raise LeaseHeld(
                f"{describe_lease(name)} is held by {held.holder}, which is alive. Wait until it ends, or stop it there"
            )
        else:
            free = raw == watched and clock() - since > ttl_s
        if free and (token := _take(store, name, raw, held, me, clock())) is not None:
            return token
        if not free and watched is None:
            watched, since = raw, clock()
        if not free:
            sleep(min(1.0, ttl_s / 10))


def beat(store: Store, name: str, token: int, clock: Callable[[], float] = time.monotonic) -> None:
    """Give a sign of life. Raises `LeaseLost` if another process has taken over."""
    swap(store, name, token, lambda held: held.model_copy(update={"beat": held.beat + 1, "clock": clock()}))


def release(store: Store, name: str, token: int) -> None:
    """Stop being the holder, if it still is. The token stays in the store: the next holder gets a larger one."""
    try:
        swap(store, name, token, lambda held: held.model_copy(update={"holder": None}))
    except LeaseLost:
        return


def holder_gone(store: Store, name: str, ttl_s: float) -> str | None:
    """Who held it when it ended without a word: its process, or "nobody"; None where it may live.

    Certain only on the holder's machine; from elsewhere watch a `Pulse`.
    """
    _, held = parse(store, name)
    if held is None:
        return None
    if held.holder is None:
        return "nobody"
    return held.holder if _is_dead(held, this_process(), ttl_s, time.monotonic()) else None


def is_free(store: Store, name: str, ttl_s: float) -> bool:
    """Can it be taken at once, because nobody has held it, or whoever did is known to be gone?"""
    return parse(store, name)[1] is None or holder_gone(store, name, ttl_s) is not None


class Pulse:
    """Watches a run's lease from any machine: no sign of life for its time to live means that the holder is gone."""

    def __init__(self, store: Store, name: str, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._name, self._ttl, self._clock = store, name, ttl_s, clock
        self._seen, self._since = parse(store, name)[0], clock()

    def stopped(self) -> bool:
        """Look again."""
        now = parse(self._store, self._name)[0]
        if now != self._seen:
            self._seen, self._since = now, self._clock()
        return self._clock() - self._since > self._ttl


def _take(store: Store, name: str, raw: bytes | None, held: Held | None, me: Holder, clock: float) -> int | None:
    """The new token, or None if somebody else was faster. A commit that the old holder began is taken along, so that
    it is finished (`fencing.settle`) before the new holder looks at anything."""
    token = first_token() if held is None else held.token + 1
    fresh = Held(
        token=token,
        holder=me.label,
        machine=me.machine,
        pid=me.pid,
        started=me.started,
        clock=clock,
        beat=0,
        pending=None if held is None else held.pending,
    )
    if not store.compare_and_swap(lease_key(name), raw, encode(fresh)):
        return None
    settle(store, name)
    return token


def _is_dead(held: Held, me: Holder, ttl_s: float, now: float) -> bool:
    """Certain only on the holder's machine: its process is gone, or its beat is older than the lease lives."""
    if held.machine != me.machine:
        return False
    return now - held.clock > ttl_s or process_start(held.pid) != held.started


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # containers run under numbers without a name
        return str(os.getuid())


def process_start(pid: int) -> str | None:
    """The process's start time in kernel ticks since boot; None if there is no such process (or it is a zombie).

    psutil tells it by the wall clock: less the boot time by the same clock it stays the same when that clock is set.
    """
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        return str(round((process.create_time() - psutil.boot_time()) * os.sysconf("SC_CLK_TCK")))
    except (psutil.NoSuchProcess, ValueError):  # ValueError: no process has such a number
        return None
