"""Two or more workers on one run, stopped and killed between any two store operations: never a double commit."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tasks.registry.history import Swap, by_a_person, move, pointer_key, read_pointer
from tasks.storage.fencing import check_token, commit
from tests.tasks.storage.simulation import World


def check_then_write(store: Any, name: str, token: int, key: str, data: bytes, expected: bytes | None) -> bool:
    """What `commit` must not be."""
    check_token(store, name, token)
    return bool(store.compare_and_swap(key, expected, data))


def promoting(swap_of: Callable[[Any, str, int], Swap]) -> Any:
    """Commits, of which those of a pointer move model `m` instead, as the promotion of a run does."""

    def how(store: Any, name: str, token: int, key: str, data: bytes, expected: bytes | None) -> bool:
        if key != "pointer":
            return commit(store, name, token, key, data, expected)
        raw, _ = read_pointer(store, "m")
        entry = {"run": str(token), "state": "s/1", "policy": "p/1", "evaluation": "e/1"}
        move(swap_of(store, name, token), "m", raw, entry)
        return False

    return how


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


@pytest.mark.parametrize("schedules", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_run_moves_a_models_pointer_that_has_lost_its_lease(schedules: int) -> None:
    worlds = play(range(schedules), promoting(lambda store, name, token: partial(commit, store, name, token)))
    assert [v for world in worlds for v in world.violations] == []
    histories = [json.loads(world.values.get(pointer_key("m"), b'{"history":[]}'))["history"] for world in worlds]
    assert sum(len(history) for history in histories) > schedules
    for history in histories:
        assert [entry["version"] for entry in history] == list(range(1, len(history) + 1))
        tokens = [int(entry["run"]) for entry in history]
        assert tokens == sorted(tokens)


def test_the_schedules_would_show_a_pointer_that_is_only_compared_and_swapped() -> None:
    worlds = play(range(100), promoting(lambda store, *_: by_a_person(store)))
    assert sum(len(world.violations) for world in worlds) > 0


@pytest.mark.slow
def test_no_double_commit_in_many_more_schedules() -> None:
    assert [v for world in play(range(1000, 20_000), commit) for v in world.violations] == []
