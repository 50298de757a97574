"""The registry: history, rollback, and what happens where two move the same pointer."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cures_core.errors import ConfigError, CorruptArtifact, TryAgain
from tasks.registry.history import by_a_person, existing_pointer, model_names, move, read_pointer, roll_back
from tasks.storage.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def candidate(name: str) -> dict[str, str]:
    return {"run": name, "state": f"train_epoch/{name}", "policy": "p/0", "evaluation": f"e/{name}", "who": "ann"}


def put(store: LocalStore, *names: str) -> None:
    for name in names:
        assert move(by_a_person(store), "m", read_pointer(store, "m")[0], candidate(name)) is not None


def test_a_pointer_keeps_its_history(store: LocalStore) -> None:
    put(store, "a", "b")
    assert model_names(store) == ["m"]
    history = existing_pointer(store, "m")[1].history
    assert [(e.version, e.run, e.who) for e in history] == [(1, "a", "ann"), (2, "b", "ann")]
    assert all(e.at for e in history)


def test_a_stale_writer_moves_nothing(store: LocalStore) -> None:
    stale = read_pointer(store, "m")[0]
    put(store, "a")
    assert move(by_a_person(store), "m", stale, candidate("b")) is None
    assert existing_pointer(store, "m")[1].current.run == "a"


def test_of_many_writers_none_loses_an_entry(store: LocalStore) -> None:
    def insist(i: int) -> None:
        while move(by_a_person(store), "m", read_pointer(store, "m")[0], candidate(f"r{i}")) is None:
            pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(insist, range(12)))
    history = existing_pointer(store, "m")[1].history
    assert sorted(e.run for e in history) == sorted(f"r{i}" for i in range(12))
    assert [e.version for e in history] == list(range(1, 13))


def test_rolling_back_goes_one_model_further_each_time(store: LocalStore) -> None:
    put(store, "a", "b", "c")
    first = roll_back(store, "m", None, "bob", "c is slow")
    assert (first.version, first.run, first.restores, first.action) == (4, "b", 2, "rolled back")
    assert (first.who, first.why) == ("bob", "c is slow")
    assert roll_back(store, "m", None, "bob", "b too").restores == 1
    with pytest.raises(ConfigError, match="nothing before version 1"):
        roll_back(store, "m", None, "bob", "again")
    assert [e.run for e in existing_pointer(store, "m")[1].history] == ["a", "b", "c", "b", "a"]


def test_a_version_can_be_named(store: LocalStore) -> None:
    put(store, "a", "b", "c")
    assert roll_back(store, "m", 1, "bob", "best").run == "a"
    assert roll_back(store, "m", 3, "bob", "no, c").run == "c"
    with pytest.raises(ConfigError, match="is the current model already"):
        roll_back(store, "m", 3, "bob", "c")
    with pytest.raises(ConfigError, match="there are 1 to 5"):
        roll_back(store, "m", 9, "bob", "?")


def test_a_rollback_does_not_undo_what_it_has_not_seen(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "a", "b")
    monkeypatch.setattr(store, "compare_and_swap", lambda *_: False)
    with pytest.raises(TryAgain, match="moved by someone else"):
        roll_back(store, "m", None, "bob", "")


def test_a_pointer_from_before_there_was_a_history_is_read(store: LocalStore) -> None:
    old = {**candidate("a"), "reasons": ["exam: gain"], "previous": None}
    del old["who"]
    store.put("models/m.json", json.dumps(old).encode())
    put(store, "b")
    assert [(e.version, e.run) for e in existing_pointer(store, "m")[1].history] == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("raw", [b"{", b'{"history": []}', b'{"history": [{"run": 1}]}', b'{"schema_version": 9}'])
def test_another_format_is_said(store: LocalStore, raw: bytes) -> None:
    store.put("models/m.json", raw)
    with pytest.raises(CorruptArtifact, match=r"models/m\.json"):
        read_pointer(store, "m")


def test_an_unknown_name_lists_those_there_are(store: LocalStore) -> None:
    put(store, "a")
    with pytest.raises(ConfigError, match="no model x in this store; models there: m"):
        existing_pointer(store, "x")
