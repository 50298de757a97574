"""When a step is run, captured and replayed. The graphs themselves are CUDA's: here they only log their calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from cures_core.rollout.hf.graphs import StepGraphs


class NotingGraph:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def replay(self) -> None:
        self.log.append("replay")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    log: list[str] = []

    current = ["ordinary stream"]

    @contextmanager
    def graph(_: Any, pool: Any, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        log.append(f"capture in {pool}")
        current[0] = "stream of the capture"
        yield
        current[0] = "ordinary stream"  # not where the capture has failed, as with torch's own
        log.append("captured")

    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: current.__setitem__(0, stream))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: NotingGraph(log))
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return log


def test_a_shape_is_run_then_captured_then_replayed(log: list[str]) -> None:
    graphs = StepGraphs(lambda *shape: log.append(f"step {shape[:2]}"), torch.device("cuda"))
    graphs.expect((1, 2))
    for _ in range(3):
        graphs.run(16, 32, 1.0, 1.0)
    # Work inside a capture is only noted down: the replay that follows does it.
    assert log == ["step (16, 32)", "capture in pool", "step (16, 32)", "captured", "replay", "replay"]
    graphs.run(16, 48, 1.0, 1.0)
    assert log[-1] == "step (16, 48)"
    assert graphs.captured == 1


def test_other_sampling_is_another_step(log: list[str]) -> None:
    graphs = StepGraphs(lambda *shape: log.append(f"step {shape[2:]}"), torch.device("cuda"))
    for temperature in (1.0, 0.0, 1.0, 0.0):
        graphs.run(16, 32, temperature, 1.0)
    assert graphs.captured == 2
    assert [word for word in log if word.startswith("step")] == ["step (1.0, 1.0)", "step (0.0, 1.0)"] * 2


def test_weights_elsewhere_are_captured_anew(log: list[str]) -> None:
    graphs = StepGraphs(lambda *shape: log.append("step"), torch.device("cuda"))
    graphs.expect((1, 2))
    for _ in range(2):
        graphs.run(16, 32, 1.0, 1.0)
    graphs.expect((1, 2))
    assert graphs.captured == 1
    graphs.expect((1, 3))
    assert graphs.captured == 0
    graphs.run(16, 32, 1.0, 1.0)
    assert log.count("capture in pool") == 2


def test_a_step_that_cannot_be_captured_is_run(log: list[str], caplog: pytest.LogCaptureFixture) -> None:
    def step(*_: Any) -> None:
        if "capture in pool" in log and "step after" not in log:
            log.append("step after")
            raise RuntimeError("operation not permitted when stream is capturing")
        log.append("step")

    graphs = StepGraphs(step, torch.device("cuda"))
    for _ in range(3):
        graphs.run(16, 32, 1.0, 1.0)
    assert log == ["step", "capture in pool", "step after", "step", "step"]
    assert "cannot be captured" in caplog.text
    assert torch.cuda.current_stream() == "ordinary stream"  # type: ignore[comparison-overlap]  # a pretended one


def test_out_of_memory_in_a_capture_is_an_error(log: list[str]) -> None:
    def step(*_: Any) -> None:
        if "capture in pool" in log:
            raise torch.OutOfMemoryError("out of memory")

    graphs = StepGraphs(step, torch.device("cuda"))
    graphs.run(16, 32, 1.0, 1.0)
    with pytest.raises(torch.OutOfMemoryError):
        graphs.run(16, 32, 1.0, 1.0)


def test_elsewhere_every_run_is_a_run() -> None:
    log: list[str] = []
    graphs = StepGraphs(lambda *_: log.append("step"), torch.device("cpu"))
    for _ in range(3):
        graphs.run(16, 32, 1.0, 1.0)
    assert log == ["step"] * 3
    assert graphs.captured == 0


def test_capturing_can_be_switched_off(log: list[str]) -> None:
    graphs = StepGraphs(lambda *_: log.append("step"), torch.device("cuda"))
    for _ in range(2):
        graphs.run(16, 32, 1.0, 1.0)
    graphs.captures = False
    graphs.run(16, 32, 1.0, 1.0)
    assert log[-2:] == ["replay", "step"]
