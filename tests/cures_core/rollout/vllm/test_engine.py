"""The vLLM engine: it sits the exam, shares prefills, takes weights and adapters, notices those that did not arrive,
and comes back after its process was killed."""

from __future__ import annotations

import copy
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from cures_core.config.rollout import VllmRolloutConfig
from cures_core.errors import EngineFailed
from cures_core.rollout import RolloutEngine
from cures_core.rollout.vllm import core as vllm_core
from cures_core.rollout.vllm.engine import VllmEngine
from cures_core.terms import Prompt, Request
from cures_core.testing.rollout_engine import RolloutEngineExam, disturb, flat, requests_of, tokens_of
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

TOKENIZER = character_tokenizer()
# The CPU build computes heads of at least 32.
LLAMA = tiny_llama(hidden_size=64, num_attention_heads=2, num_key_value_heads=1)


class Pool:
    """Started engines by what cannot be changed later: a start takes many seconds."""

    def __init__(self) -> None:
        self.engines: dict[bool, VllmEngine] = {}

    def get(self, model: Any, **options: Any) -> VllmEngine:
        cfg = VllmRolloutConfig(**options)
        cut = cfg.top_p < 1
        if cut not in self.engines:
            self.engines[cut] = VllmEngine(model, TOKENIZER, cfg)
        engine = self.engines[cut]
        engine.retune(cfg)
        engine.sync(model)
        return engine


POOL = Pool()


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    for engine in POOL.engines.values():
        engine.close()
    POOL.engines.clear()


class _Open:
    """An engine of the pool that outlives its exam."""

    def __init__(self, engine: VllmEngine) -> None:
        self.generate, self.sync, self.sleep, self.retune = engine.generate, engine.sync, engine.sleep, engine.retune
        self.cfg, self.core = engine.cfg, engine.core

    def close(self) -> None:
        pass


class TestVllmEngine(RolloutEngineExam):
    def policy(self) -> tuple[Any, Any]:
        return LLAMA, TOKENIZER

    def make(self, model: Any, tokenizer: Any, **options: Any) -> RolloutEngine:
        # A CPU's engine takes the calls of sleep and keeps its memory.
        return _Open(POOL.get(model, sleep_level=1, **options))

    def crash(self, engine: RolloutEngine) -> bool:
        assert isinstance(engine, _Open)
        os.kill(engine.core.pids[0], signal.SIGKILL)
        return True


def test_a_group_shares_the_prefill_of_its_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = POOL.get(LLAMA, max_new_tokens=2)
    cached: list[int] = []
    kept = vllm_core._sampled
    monkeypatch.setattr(
        vllm_core, "_sampled", lambda output: (cached.append(output.num_cached_tokens), kept(output))[1]
    )
    engine.generate([Request("r", Prompt("long", "1+2+3+4+5+" * 7, "?"), 4, 0)])
    assert cached[0] >= 64  # two whole blocks of 32


def test_more_prompts_than_fit_into_one_step() -> None:
    """On CPU a prompt that a step cuts in two kills vLLM; a step takes 4096 tokens."""
    requests = [Request(f"r{i}", Prompt(f"p{i}", f"{i}+" + "1+2+3+4+5+" * 7, "?"), 2, 0) for i in range(70)]
    groups = POOL.get(LLAMA, max_new_tokens=2, max_restarts=0).generate(requests)
    assert [len(group) for group in groups] == [2] * 70


def test_an_adapter_arrives_merged_and_the_policy_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = get_peft_model(copy.deepcopy(LLAMA), LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
    engine = POOL.get(model, max_new_tokens=8)
    plain = tokens_of(engine.generate(requests_of(n=3)))
    assert plain == tokens_of(POOL.get(LLAMA, max_new_tokens=8).generate(requests_of(n=3)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with monkeypatch.context() as patch:
        patch.setattr(engine.core, "reload", lambda _folder: None)
        with pytest.raises(EngineFailed, match="adapter"):
            engine.sync(model)
    engine.sync(model)
    assert engine.gap < 1e-3
    assert tokens_of(engine.generate(requests_of(n=3))) != plain
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("size", [0.01, 1.0])
def test_weights_that_did_not_arrive_are_noticed(size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = POOL.get(LLAMA, max_new_tokens=4, fingerprint_bound=0.5)
    moved = copy.deepcopy(LLAMA)
    with torch.no_grad():
        moved.lm_head.weight.mul_(1 + size * 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(engine.core, "reload", lambda _folder: None)
        with pytest.raises(EngineFailed, match="did not arrive"):
            engine.sync(moved)
    engine.sync(moved)
    assert engine.gap < 1e-3


def test_without_restarts_the_failure_names_its_cause() -> None:
    engine = POOL.get(LLAMA, max_new_tokens=200, max_restarts=0)
    os.kill(engine.core.pids[0], signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(EngineFailed, match="died"):
        engine.generate(requests_of(n=4))
    assert time.monotonic() - started < 60
    engine.core.stop()
    engine.core.start(engine._handover.folder)


def test_disturbed_weights_change_the_logprobs() -> None:
    other = copy.deepcopy(LLAMA)
    disturb(other)
    first = flat(POOL.get(LLAMA, max_new_tokens=4, temperature=0).generate(requests_of(n=1)))
    second = flat(POOL.get(other, max_new_tokens=4, temperature=0).generate(requests_of(n=1)))
    assert np.abs(np.array(first[0].logprobs[:1]) - np.array(second[0].logprobs[:1])).max() > 1e-3
