"""The engine over HTTP sits the exam, with one server and with two, against a server that speaks vLLM's protocol."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from cures_core.config.rollout import VllmServerRolloutConfig
from cures_core.rollout import RolloutEngine, build_engine
from cures_core.testing.rollout_engine import RolloutEngineExam
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama
from tests.cures_core.rollout.vllm.fake_vllm import FakeVllm, fake_servers


@cache
def _policy() -> tuple[Any, Any]:
    return tiny_llama(), character_tokenizer()


class TestVllmServerEngine(RolloutEngineExam):
    num_servers = 1
    sleep_level = 0

    @pytest.fixture(autouse=True)
    def _servers(self) -> Iterator[None]:
        # What they hold at first is not the policy: it has to be sent.
        with fake_servers(self.num_servers, tiny_llama(seed=7), character_tokenizer()) as self.servers:
            yield

    def policy(self) -> tuple[Any, Any]:
        return _policy()

    def make(self, model: Any, tokenizer: Any, **options: Any) -> RolloutEngine:
        for server in self.servers:
            server.mode = "processed_logprobs" if options.get("top_p", 1) == 1 else "raw_logprobs"
        endpoints = tuple(server.url for server in self.servers)
        # Few calls at a time, so that a server that is killed when the first has ended leaves some undone.
        cfg = VllmServerRolloutConfig(endpoints=endpoints, sleep_level=self.sleep_level, max_in_flight=2, **options)
        return build_engine(cfg, model, tokenizer)

    def crash(self, engine: RolloutEngine) -> bool:
        """Its supervisor starts it again, with the weights it had at first."""
        restart(self.servers[0])
        return True


def restart(server: FakeVllm) -> None:
    server.kill()
    server.start()


class TestVllmServerEngineWithTwoServersThatSleep(TestVllmServerEngine):
    num_servers = 2
    sleep_level = 2

    def crash(self, engine: RolloutEngine) -> bool:
        """For good: the other one has to do."""
        self.servers[0].kill()
        return True
