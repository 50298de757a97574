"""Waits end: with a result, an error, at the deadline, or when the process is gone."""

from __future__ import annotations

import threading
import time

import pytest

from cures_core.errors import EngineFailed
from cures_core.rollout.vllm.waiting import Caller


def test_results_and_errors_come_back() -> None:
    caller = Caller("engine", lambda: True)
    assert caller.call(lambda: 3, "three", 10) == 3
    with pytest.raises(TimeoutError, match="its own"):
        caller.call(_raise_timeout, "an error", 10)
    caller.leave()


def test_calls_run_in_one_thread_that_is_not_the_callers() -> None:
    caller = Caller("engine", lambda: True)
    threads = {caller.call(threading.get_ident, "it", 10) for _ in range(3)}
    caller.leave()
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_the_deadline_names_what_was_waited_for_and_the_next_call_works() -> None:
    caller, hang = Caller("engine", lambda: True), threading.Event()
    with pytest.raises(EngineFailed, match=r"engine: waited 0.3 s for the next step"):
        caller.call(hang.wait, "the next step", 0.3)
    assert caller.call(lambda: 4, "four", 10) == 4
    caller.leave()
    hang.set()


def test_a_dead_process_ends_the_wait_long_before_the_deadline() -> None:
    caller, hang, started = Caller("engine", lambda: False), threading.Event(), time.monotonic()
    with pytest.raises(EngineFailed, match="died while waiting for the next step"):
        caller.call(hang.wait, "the next step", 600)
    assert time.monotonic() - started < 30
    hang.set()


def test_what_a_dying_engine_still_says_is_preferred() -> None:
    caller = Caller("engine", lambda: False)
    with pytest.raises(ValueError, match="out of blocks"):
        caller.call(_say_why, "the next step", 600)
    caller.leave()


def _raise_timeout() -> None:
    raise TimeoutError("its own")


def _say_why() -> None:
    time.sleep(0.5)
    raise ValueError("out of blocks")
