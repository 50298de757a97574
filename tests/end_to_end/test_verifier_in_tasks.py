"""Verifiers inside Prefect: tasks that run in threads of their own share one, and what hangs in one hurts no other."""

from __future__ import annotations

import pytest
from prefect import flow, task
from prefect.testing.utilities import prefect_test_harness

from cures_core.config.rewards import MathConfig
from cures_core.rewards import make_verifier
from tests.cures_core.rewards.processes import everything

pytestmark = [pytest.mark.slow, pytest.mark.end_to_end]

ITEMS = [(r"\boxed{1+x}", "x+1"), (r"\boxed{9^{9^{9^{9}}}}", "x+1"), (r"\boxed{2x}", "x+1")]


def test_tasks_in_threads_share_a_verifier() -> None:
    with make_verifier(MathConfig(timeout_s=0.5)) as verifier:

        @task
        def judge(n: int) -> list[str]:
            return [v.outcome.value for v in verifier.judge_pairs([*ITEMS, (rf"\boxed{{y+{n}}}", f"{n}+y")])]

        @flow
        def judge_all() -> list[list[str]]:
            return [future.result() for future in judge.map(range(6))]

        with prefect_test_harness(server_startup_timeout=120):
            assert judge_all() == [["correct", "unknown", "wrong", "correct"]] * 6
    assert everything() == []
