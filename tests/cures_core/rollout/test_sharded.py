"""Ranks that share out rollouts sit the exam of engines together, and give the tokens of one rank."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cures_core.config.rollout import HfRolloutConfig
from cures_core.distributed import END, World, serve
from cures_core.rollout import RolloutEngine, build_engine
from cures_core.rollout.sharded import ShardedEngine, deal
from cures_core.testing.rollout_engine import RolloutEngineExam, requests_of, tokens_of
from tests.cures_core.ranks import in_ranks
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama


@cache
def _policy() -> tuple[Any, Any]:
    return tiny_llama(), character_tokenizer()


class _Led(ShardedEngine):
    """Rank 0's engine, whose `close` ends the thread of the other rank."""

    world: World
    over: threading.Event

    def close(self) -> None:
        if not self.over.is_set():
            self.world.call(END)
            self.over.set()


class TestShardedEngine(RolloutEngineExam):
    def policy(self) -> tuple[Any, Any]:
        return _policy()

    def make(self, model: Any, tokenizer: Any, **options: Any) -> RolloutEngine:
        cfg = HfRolloutConfig(**options)
        ready: list[_Led] = []
        made, over = threading.Event(), threading.Event()

        def work(world: World) -> None:
            own = copy.deepcopy(model) if world.rank else model
            engine = _Led(build_engine(cfg, own, tokenizer), world, lambda: own)
            if world.rank:
                # Weights are the trainer's affair: here the follower is handed what rank 0 was.
                serve(world, {**engine.handlers, "sync": lambda _: own.load_state_dict(model.state_dict())})
            else:
                engine.world, engine.over = world, over
                ready.append(engine)
                made.set()
                over.wait(60)

        ThreadPoolExecutor(1).submit(in_ranks, 2, work)
        assert made.wait(60)
        return ready[0]


def test_tokens_do_not_depend_on_the_number_of_ranks() -> None:
    model, tokenizer = _policy()
    cfg, wanted = HfRolloutConfig(max_new_tokens=12), requests_of(n=(3, 1, 5, 2, 4, 1))
    alone = build_engine(cfg, model, tokenizer).generate(wanted)
    progress_calls: list[tuple[int, int]] = []

    def work(world: World) -> Any:
        own = copy.deepcopy(model)
        engine = ShardedEngine(build_engine(cfg, own, tokenizer), world, lambda: own)
        if world.rank:
            return serve(world, engine.handlers)
        with world.leading():
            return engine.generate(wanted, progress=lambda done, total: progress_calls.append((done, total)))

    shared = in_ranks(3, work)[0]
    assert tokens_of(shared) == tokens_of(alone)
    assert [[r.text for r in group] for group in shared] == [[r.text for r in group] for group in alone]
    assert progress_calls[-1] == (16, 16)


@given(st.lists(st.integers(1, 9), max_size=30), st.integers(1, 5))
def test_every_request_is_dealt_once_and_hands_are_even(sizes: list[int], hands: int) -> None:
    dealt = deal(sizes, hands)
    assert sorted(i for hand in dealt for i in hand) == list(range(len(sizes)))
    sums = [sum(sizes[i] for i in hand) for hand in dealt]
    assert max(sums) - min(sums) <= max(sizes, default=0)
