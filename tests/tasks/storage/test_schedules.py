"""Two or more workers on one run, stopped and killed between any two store operations: never a double commit."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.storage.fencing import check_token, commit
from tests.tasks.storage.simulation import World


def check_then_write(store: Any, name: str, token: int, key: str, data: bytes, expected: bytes | None) -> bool:
    """What `commit` must not be."""
    check_token(store, name, token)
    return bool(store.compare_and_swap(key, expected, data))


def play(seeds: range, how: Any) -> list[World]:
    worlds = []
    for seed in seeds:
        world = World(seed, how)
        world.run()
        worlds.append(world)
    return worlds


def test_no_double_commit_in_a_thousand_schedules() -> None:
    worlds = play(range(1000), commit)
    assert [v for world in worlds for v in world.violations] == []
    # The schedules are hard ones: leases are lost and taken over in many, and work is done in most.
    assert sum(world.lost > 0 for world in worlds) > 100
    assert sum(world.takeovers > 0 for world in worlds) > 300
    assert sum(world.finished for world in worlds) > 1000


def test_the_schedules_would_show_a_check_before_a_write() -> None:
    worlds = play(range(300), check_then_write)
    assert sum(len(world.violations) for world in worlds) > 0


@pytest.mark.slow
def test_no_double_commit_in_many_more_schedules() -> None:
    assert [v for world in play(range(1000, 20_000), commit) for v in world.violations] == []
