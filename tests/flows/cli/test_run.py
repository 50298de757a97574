"""What `cures run` shows on the terminal while the flow works."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from cures_core.config.run import RunConfig
from cures_core.events import StepDone
from flows.cli.run import _run_flow
from tasks.progress import emit


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("alarm", "told"), [(0.0, False), (0.05, True)])
def test_the_configured_entropy_alarm_is_the_one_of_the_lines(
    alarm: float, told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tasks.readiness.require_ready", lambda _: None)
    monkeypatch.setattr("flows.local.temporary_server.temporary_server", lambda _: nullcontext())
    step = StepDone(epoch=1, seconds=1.0, last_step=2, metrics={"step": 1, "sampled_entropy": 0.01})
    monkeypatch.setattr("flows.train.train", lambda _: emit(step))
    training = {"learning_rate": 1e-3, "entropy_alarm": alarm}
    _run_flow(RunConfig.model_validate({"data": {"path": "p"}, "rollout": {"max_new_tokens": 4}, "training": training}))
    shown = capsys.readouterr().err
    assert "step 1/2" in shown
    assert ("WARNING: entropy below 0.05 nats a token" in shown) is told
