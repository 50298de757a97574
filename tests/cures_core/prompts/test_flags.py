"""Flags: the last word on an id holds, the version follows the flags alone, damaged lists are refused."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from cures_core.errors import ConfigError, DataRejected, MissingInput
from cures_core.prompts.flags import add, flags_digest, read_flags, requested

A, B = "a" * 32, "b" * 32


def test_the_last_word_holds_and_history_stays(tmp_path: Path) -> None:
    path = tmp_path / "new" / "flags.jsonl"
    assert add(path, "flag", [(A, "wrong gold"), (B, "unclear")]) == 2
    version = flags_digest(read_flags(path))
    assert add(path, "flag", [(A, "wrong  gold")]) == 0  # already so
    assert add(path, "unflag", [(B, "")]) == 1
    assert read_flags(path) == {A: "wrong gold"}
    assert flags_digest(read_flags(path)) != version
    add(path, "flag", [(B, "unclear")])
    assert flags_digest(read_flags(path)) == version
    assert [json.loads(line)["action"] for line in path.read_text().splitlines()] == ["flag", "flag", "unflag", "flag"]


def test_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "flags.jsonl"
    for wanted, message in (([(A, "x"), ("short", "x")], "not a content id"), ([(A, " ")], "say why")):
        with pytest.raises(ConfigError, match=message):
            add(path, "flag", wanted)
    with pytest.raises(ConfigError, match="is not flagged"):
        add(path, "unflag", [(A, "")])
    assert not path.exists()


def test_two_people_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "flags.jsonl"
    people = [
        threading.Thread(target=lambda n=n: [add(path, "flag", [(f"{n:02x}{i:030x}", "x")]) for i in range(10)])
        for n in range(4)
    ]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert len(read_flags(path)) == 40


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "x"}', json.dumps({"action": "maybe", "id": A, "reason": ""})])
def test_a_damaged_list_is_refused_with_its_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "flags.jsonl"
    add(path, "flag", [(A, "x")])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataRejected, match=r"flags\.jsonl:2"):
        read_flags(path)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="cures data flag"):
        read_flags(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_flags(tmp_path)
    source = tmp_path / "wanted.jsonl"
    source.write_text(json.dumps({"id": A, "reason": "x"}) + "\n\n" + json.dumps({"id": B, "reason": "y"}) + "\n")
    assert requested(source) == [(A, "x"), (B, "y")]
