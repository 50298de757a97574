"""A flow run is called after the run that it works on."""

from __future__ import annotations

import pytest

from flows.ui.names import name_flow_run, renamed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train tiny", "train tiny-1a2b"),
        ("train tiny-1a2b", "train tiny-1a2b"),  # of a Retry
        ("retrain tiny b1946ac9", "retrain tiny-1a2b b1946ac9"),
        ("by hand", "by hand tiny-1a2b"),
        ("", "tiny-1a2b"),
    ],
)
def test_the_run_takes_the_place_of_its_profile(name: str, expected: str) -> None:
    assert renamed(name, "tiny", "tiny-1a2b") == expected


def test_outside_prefect_nothing_is_called_anything() -> None:
    name_flow_run("tiny", "tiny-1a2b")


@pytest.mark.end_to_end
def test_the_server_has_the_name() -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run
    from prefect.testing.utilities import prefect_test_harness

    @flow(flow_run_name="train tiny")
    def work() -> str:
        name_flow_run("tiny", "tiny-1a2b")
        return str(flow_run.id)

    with prefect_test_harness(server_startup_timeout=120):
        made = work()
        with get_client(sync_client=True) as client:
            assert client.read_flow_run(made).name == "train tiny-1a2b"
