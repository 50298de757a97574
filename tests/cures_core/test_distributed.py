"""What ranks say to each other arrives whole; who is gone or late is told by name and in time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cures_core.distributed import World, serve
from cures_core.errors import OutOfMemory, Preempted, RankLost
from cures_core.failures import failure_of
from cures_core.jobs.rank import join
from tests.cures_core.ranks import in_ranks


def test_calls_reach_all_followers_until_the_end() -> None:
    def work(world: World) -> list[Any]:
        received: list[Any] = []
        if world.rank == 0:
            with world.leading():
                world.call("add", {"text": "ä", "numbers": [0.1, 2**60]})
                world.call("add", None)
        else:
            serve(world, {"add": received.append})
        return received

    assert in_ranks(3, work) == [[], *([[{"text": "ä", "numbers": [0.1, 2**60]}, None]] * 2)]


def test_sums_largest_values_and_gathered_ones() -> None:
    def work(world: World) -> Any:
        mine = torch.tensor([1.0 + world.rank, -float(world.rank)])
        total = world.sum_(mine.clone(), "a sum").tolist()
        largest = world.max_(mine.clone(), "a maximum").tolist()
        first = world.broadcast_(mine.clone(), "a tensor").tolist()
        return total, largest, first, world.gather({"rank": world.rank, "x": "y" * world.rank}, "values")

    results = in_ranks(3, work)
    assert all(result[:3] == ([6.0, -3.0], [3.0, 0.0], [1.0, 0.0]) for result in results)
    assert results[0][3] == [{"rank": r, "x": "y" * r} for r in range(3)]
    assert results[1][3] == []


def test_a_stop_between_two_calls_lets_the_others_end() -> None:
    def work(world: World) -> str:
        if world.rank:
            serve(world, {})
            return "ended"
        with pytest.raises(Preempted), world.leading():
            raise Preempted("asked to stop")
        return "stopped"

    assert in_ranks(2, work) == ["stopped", "ended"]


def test_a_rank_that_does_not_come_is_told_within_the_deadline() -> None:
    over = threading.Event()

    def work(world: World) -> float:
        if world.rank:
            over.wait(30)
            return 0.0
        started = time.monotonic()
        with pytest.raises(RankLost, match="rank 0 of 2 waited for the gradients"):
            world.sum_(torch.zeros(3), "the gradients of the step")
        over.set()
        return time.monotonic() - started

    assert in_ranks(2, work, timeout_s=1.0)[0] < 10


def test_one_rank_alone_says_nothing() -> None:
    world, tensor = World(), torch.ones(2)
    world.call("anything")
    with world.leading():
        assert world.gather(5, "values") == [5]
    assert world.sum_(tensor, "x") is tensor


def test_a_lack_of_memory_in_a_collective_is_not_the_loss_of_a_rank() -> None:
    class Full:
        """A group whose device has no room for the buffers."""

        def allreduce(self, *_: Any) -> None:
            raise RuntimeError("NCCL error: Cuda failure 'out of memory'")

    with pytest.raises(RuntimeError, match="out of memory") as caught:
        World(0, 2, Full()).sum_(torch.ones(2), "the gradients")
    assert type(failure_of(caught.value)) is OutOfMemory


@pytest.mark.parametrize("place", ["FileStore", "TCPStore"])
def test_a_lack_of_memory_where_ranks_meet_is_not_the_loss_of_a_rank(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A store that has no room for its buffers, here from its start."""

        def __init__(self, *_: Any, **__: Any) -> None:
            if place == "TCPStore":
                self.wait()

        def set(self, *_: Any) -> None: ...

        def wait(self, *_: Any) -> None:
            raise RuntimeError("std::bad_alloc")

    monkeypatch.setattr(f"torch.distributed.{place}", Full)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "CURES_WAIT_TIMEOUT_S": "1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1" if place == "TCPStore" else "")
    with pytest.raises(RuntimeError) as caught:
        join(tmp_path, 0.5)
    assert type(failure_of(caught.value)) is OutOfMemory
