"""The automations that keep runs from staying where they are."""

from __future__ import annotations

import pytest
from prefect.server.events.schemas.automations import AutomationCore
from prefect.server.schemas.states import StateType

from flows.local.deploying import BEGIN_S, HEARTBEAT_S, PoolType, automation, watches


@pytest.mark.parametrize("pool_type", BEGIN_S)
def test_prefect_takes_them_and_no_end_of_a_run_is_waited_for_in_vain(pool_type: PoolType) -> None:
    found = watches(pool_type)
    assert len({watch.name for watch in found}) == 3
    for watch in found:
        made = AutomationCore.model_validate(automation(watch))
        ends = {f"prefect.flow-run.{state.value.capitalize()}" for state in StateType if state.name in
                ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")}  # fmt: skip
        assert ends <= made.trigger.expect
        assert made.trigger.within.total_seconds() >= 3 * HEARTBEAT_S


def test_a_run_that_has_begun_or_is_to_begin_again_is_not_one_that_did_not_begin() -> None:
    begun = watches("process")[1]
    assert {"Running", "heartbeat", "AwaitingRetry", "Cancelling"} <= set(begun.expect)
