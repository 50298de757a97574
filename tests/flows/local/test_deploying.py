"""The automations that keep runs from staying where they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from prefect.server.events.schemas.automations import AutomationCore
from prefect.server.schemas.states import StateType

from flows.local import deploying
from flows.local.deploying import BEGIN_S, HEARTBEAT_S, PoolType, automation, watch_runs, watches


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


def test_a_run_is_watched_from_running_on_and_anew_after_a_retry() -> None:
    """What is expected too begins the time anew, where an end of the run before the Retry would still count."""
    trigger = AutomationCore.model_validate(automation(watches("process")[0])).trigger
    for event in ("prefect.flow-run.Running", "prefect.flow-run.heartbeat"):
        assert trigger.starts_after(event)
        assert trigger.expects(event)


class Server:
    """Keeps automations as Prefect's does: in its own form, with fields that nobody has set."""

    def __init__(self) -> None:
        self.kept, self.calls = dict[str, Any](), list[tuple[str, str]]()

    def __call__(self, _: str, path: str, body: Any, method: str = "POST", look: str = "") -> Any:
        if path == "/automations/filter":
            return [one for one in self.kept.values() if one["name"] in body["automations"]["name"]["any_"]]
        self.calls.append((method, path))
        id = path.split("/")[2] or str(len(self.kept))
        self.kept[id] = {**AutomationCore.model_validate(body).model_dump(mode="json"), "id": id}
        return None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    found = Server()
    monkeypatch.setattr(deploying, "call", found)
    return found


def test_deploying_again_makes_nothing_and_changes_nothing(server: Server) -> None:
    for _ in range(3):
        watch_runs("http://server/api")
    assert server.calls == [("POST", "/automations/")] * 3


@pytest.mark.parametrize(
    "change",
    [{"within_s": 77}, {"expect": ("heartbeat",)}, {"after": ("Late",)}, {"state": "FAILED"}, {"message": "as it was"}],
)
def test_what_an_earlier_version_made_is_brought_up_to_date(
    change: dict[str, Any], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = watches("process")
    monkeypatch.setattr(deploying, "watches", lambda _: (replace(now[0], **change), *now[1:]))
    watch_runs("http://server/api")
    server.kept["0"]["enabled"] = False  # by an operator
    monkeypatch.undo()
    monkeypatch.setattr(deploying, "call", server)
    watch_runs("http://server/api")
    watch_runs("http://server/api")
    assert server.calls[3:] == [("PUT", "/automations/0")]
    found = AutomationCore.model_validate({**server.kept["0"], "enabled": True})
    wanted = AutomationCore.model_validate(automation(now[0]))
    ids = {"trigger": {"id"}}
    assert found.model_dump(exclude=ids) == wanted.model_dump(exclude=ids)
    assert server.kept["0"]["enabled"] is False


def test_another_kind_of_pool_waits_longer(server: Server) -> None:
    watch_runs("http://server/api")
    watch_runs("http://server/api", "kubernetes")
    assert server.calls[3:] == [("PUT", "/automations/1")]
    assert server.kept["1"]["trigger"]["within"] == BEGIN_S["kubernetes"]
