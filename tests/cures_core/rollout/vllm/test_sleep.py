"""What the in-process engine asks of vLLM around a trainer's update: seen at the seam, without vLLM itself."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cures_core.config.rollout import PromptFormat, VllmRolloutConfig
from cures_core.errors import EngineFailed
from cures_core.rollout.vllm import core as vllm_core
from cures_core.rollout.vllm import engine as vllm_engine
from cures_core.rollout.vllm.calls import Call, Sampled
from cures_core.rollout.vllm.core import VllmCore
from cures_core.rollout.vllm.probe import probe_logprobs
from cures_core.testing.rollout_engine import requests_of
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama


class RecordingLLM:
    """Takes the calls and keeps them."""

    def __init__(self, folder: str, **options: Any) -> None:
        self.options = options
        self.calls: list[tuple[str, Any]] = []
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=lambda: None))

    def sleep(self, level: int, mode: str) -> None:
        self.calls.append(("sleep", level))

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append(("wake_up", tags))

    def collective_rpc(self, method: str, kwargs: dict[str, str]) -> None:
        self.calls.append((method, Path(kwargs["weights_path"]).name))

    def reset_prefix_cache(self) -> None:
        self.calls.append(("reset_prefix_cache", None))


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=RecordingLLM))
    cores: list[VllmCore] = []

    def start(on_gpu: bool, **options: Any) -> tuple[VllmCore, RecordingLLM]:
        folder = tmp_path / "weights" / "000001"
        folder.mkdir(parents=True, exist_ok=True)
        cores.append(VllmCore(VllmRolloutConfig(**options), folder, "bfloat16", on_gpu))
        return cores[-1], cores[-1]._llm

    yield start
    for core in cores:
        core.stop()


def test_sleep_needs_its_memory_pool_which_only_a_gpu_has(started: Any) -> None:
    assert started(True, sleep_level=1)[1].options["enable_sleep_mode"] is True
    assert started(True, sleep_level=0)[1].options["enable_sleep_mode"] is False
    assert started(False, sleep_level=1)[1].options["enable_sleep_mode"] is False


def test_vllm_is_told_its_share_of_a_gpu_and_to_spawn(started: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_WORKER_MULTIPROC_METHOD", raising=False)
    monkeypatch.setattr(vllm_core, "memory_share", lambda folder, gib: 0.01 * gib)
    assert started(True, kv_cache_gib=6)[1].options["gpu_memory_utilization"] == 0.06
    assert "gpu_memory_utilization" not in started(False)[1].options
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"


@pytest.mark.parametrize("level", [1, 2])
def test_a_sleeping_engine_wakes_weights_first_and_its_cache_last(level: int, started: Any, tmp_path: Path) -> None:
    core, llm = started(True, sleep_level=level)
    core.sleep(level)
    assert core.asleep
    core.reload(tmp_path / "000002")
    assert llm.calls == [
        ("sleep", level),
        ("wake_up", ["weights"]),
        ("reload_weights", "000002"),
        ("wake_up", ["kv_cache"]),
        ("reset_prefix_cache", None),
    ]
    assert not core.asleep


def test_an_engine_that_is_awake_is_not_woken(started: Any, tmp_path: Path) -> None:
    core, llm = started(True)
    core.reload(tmp_path / "000002")
    assert [name for name, _ in llm.calls] == ["reload_weights", "reset_prefix_cache"]


def test_each_wait_for_the_engine_has_the_limit_that_is_configured_for_it(
    started: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = threading.Event()
    core, llm = started(True, sync_timeout_s=0.3, stall_timeout_s=0.6, start_timeout_s=77)
    assert os.environ["VLLM_ENGINE_READY_TIMEOUT_S"] == "77"
    monkeypatch.setattr(llm, "sleep", lambda **_: hang.wait(60))
    with pytest.raises(EngineFailed, match=r"waited 0.3 s for the engine to sleep"):
        core.sleep(1)
    monkeypatch.setattr(llm, "collective_rpc", lambda *_, **__: hang.wait(60))
    with pytest.raises(EngineFailed, match=r"waited 0.3 s for the new weights to be loaded"):
        core.reload(tmp_path / "000002")
    with pytest.raises(EngineFailed, match=r"waited 0.6 s for the next completion"):
        core._wait(lambda: hang.wait(60), "the next completion")
    hang.set()


def test_stop_tokens_of_another_format_are_left_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer, asked = tiny_llama(), character_tokenizer(), []

    class Core:
        context, asleep = 64, False

        def __init__(self, *_: object) -> None: ...

        def probe(self, ids: Any) -> Any:
            return probe_logprobs(model, ids)

        def run(self, calls: list[Call], finished: Any) -> None:
            for call in calls:
                asked.append(call.fields["stop_token_ids"])
                finished(call.name, [Sampled((5,), (-1.0,), "length")] * call.n)

        def stop(self) -> None: ...

    monkeypatch.setattr(vllm_engine, "VllmCore", Core)
    plain = VllmRolloutConfig(max_new_tokens=1)
    engine = vllm_engine.VllmEngine(model, tokenizer, plain)
    for cfg in (plain, plain.model_copy(update={"prompt_format": PromptFormat(stop=("<unk>",))}), plain):
        engine.retune(cfg)
        engine.generate(requests_of(n=1)[:1])
    engine.close()
    assert asked == [[2], [2, tokenizer.unk_token_id], [2]]
