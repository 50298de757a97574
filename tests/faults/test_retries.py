"""Prefect itself starts again what the table calls retryable, and nothing else; the flow gets the table's error."""

from __future__ import annotations

import errno
import time
from collections import Counter, defaultdict
from collections.abc import Callable

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.context import TaskRunContext
from prefect.testing.utilities import prefect_test_harness

from cures_core.errors import ChildFailed, CuresError, KilledForMemory, OutOfMemory, SystemRefused, UnexpectedError
from cures_core.failures import TABLE, Ended, failure_of
from tasks.stages import stage
from tasks.stages.stage import as_stage

CAUSES: dict[str, tuple[Exception, type[CuresError], int]] = {
    "type_error": (TypeError("unsupported operand"), UnexpectedError, 1),
    "memory": (MemoryError(), OutOfMemory, 1),
    "rights": (PermissionError(errno.EACCES, "Permission denied", "/store/k"), SystemRefused, 1),
    "killed": (failure_of(Ended(-9)), ChildFailed, 3),
    "killed_for_memory": (failure_of(Ended(-9, for_memory=True)), KilledForMemory, 3),
    "unknown_code": (failure_of(Ended(7)), ChildFailed, 3),
}


def test_what_is_retryable_is_started_three_times_and_the_rest_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "RETRY_DELAYS_S", [0.0, 0.0])
    starts, ends, shown = Counter[str](), dict[str, Exception](), defaultdict[str, list[str | None]](list)

    def stage_of(name: str) -> Callable[[], None]:
        def work() -> None:
            starts[name] += 1
            context = TaskRunContext.get()
            assert context is not None
            shown[name].append(context.task_run.state_name)
            raise CAUSES[name][0]

        work.__name__ = name
        return as_stage()(work)

    @flow
    def all_of_them() -> None:
        for name in CAUSES:
            try:
                stage_of(name)()
            except Exception as error:
                ends[name] = error

    with prefect_test_harness(server_startup_timeout=120):
        all_of_them()
        with get_client(sync_client=True) as client:
            deadline = time.monotonic() + 60  # the server hears of them by events
            while {run.state_name for run in client.read_task_runs()} != {"Failed"}:
                assert time.monotonic() < deadline, [(run.name, run.state_name) for run in client.read_task_runs()]
                time.sleep(0.1)
            runs = client.read_task_runs()
    assert {run.name for run in runs} == set(CAUSES)
    assert {name: (type(ends[name]), starts[name]) for name in CAUSES} == {
        name: (kind, times) for name, (_, kind, times) in CAUSES.items()
    }
    for name, (_, kind, times) in CAUSES.items():
        assert shown[name] == ["Running", "Retrying", "Retrying"][:times], name
        said = {row.state for row in TABLE if row.error is kind and not row.crashed}
        assert said == {"Failed" if times == 1 else "AwaitingRetry, in the end Failed"}
    assert "Nobody foresaw this" in str(ends["type_error"])
    assert "/store/k: Permission denied" in str(ends["rights"])
