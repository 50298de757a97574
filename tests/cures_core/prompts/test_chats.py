"""Chat-style rows keep their system message and earlier turns, and prompts without any stay what they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.config.data import DataConfig
from cures_core.prompts import PromptSet, content_id, load_prompts, make_prompt
from cures_core.prompts.chats import ROLES, Chat, conversation, read_chat, read_turns, transcript, written
from cures_core.prompts.diff import difference
from cures_core.prompts.loading import without_turns
from cures_core.prompts.overlap import find_overlap
from tests.cures_core.prompts.files import jsonl, loaded, reasons

SYSTEM = {"role": "system", "content": "Answer in base 7."}
EARLIER = [{"role": "user", "content": "I own 5 hens."}, {"role": "assistant", "content": "Noted."}]
ASKED = {"role": "user", "content": "How many eggs do they lay?"}
TURNS = (("system", "Answer in base 7."), ("user", "I own 5 hens."), ("assistant", "Noted."))
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


def row(*messages: dict[str, Any], answer: str = "7") -> dict[str, Any]:
    return {"prompt": list(messages), "answer": answer}


def chats(folder: Path, *rows: dict[str, Any], **options: Any) -> Any:
    return loaded(folder, rows, problem_rule="chat", **options)


def test_earlier_turns_are_kept_in_their_order(tmp_path: Path) -> None:
    found = chats(tmp_path, row(SYSTEM, *EARLIER, ASKED), row(ASKED, answer="8"))
    assert reasons(found) == {}
    by_answer = {prompt.answer: prompt for prompt in found.prompts}
    assert (by_answer["7"].problem, by_answer["7"].turns) == (ASKED["content"], TURNS)
    assert by_answer["8"].turns == ()


def test_the_id_of_a_prompt_without_turns_is_what_it_was(tmp_path: Path) -> None:
    """Posteriors are keyed by it."""
    assert content_id("What is 1+1?", "2") == "84625c89b9e60a1b278910a0035d1ca7"
    (alone,) = chats(tmp_path, row(ASKED)).prompts
    assert alone.id == content_id(ASKED["content"], "7")
    ids = {
        alone.id,
        *(make_prompt(ASKED["content"], "7", turns=TURNS[i:j]).id for i in range(3) for j in range(i + 1, 4)),
    }
    assert len(ids) == 7


@given(st.lists(st.tuples(st.sampled_from(ROLES), TEXT), max_size=4), TEXT, TEXT)
def test_no_two_conversations_share_an_id(turns: list[tuple[str, str]], problem: str, answer: str) -> None:
    said = tuple(turns)
    assert read_turns(written(said)) == said
    made = {make_prompt(problem, answer, turns=said[:i]).id for i in range(len(said) + 1)}
    assert len(made) == len(said) + 1
    assert make_prompt(written(said) + problem, answer).id not in made or not said


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ("text", Chat(None)),
        ([], Chat(None)),
        ([SYSTEM], Chat(None)),
        ([{"role": "system", "content": ""}, ASKED], Chat(ASKED["content"])),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], Chat("ab")),
        ([ASKED, {"role": "assistant", "content": "42"}], Chat(ASKED["content"], reply="42")),
        ([{"role": "tool", "content": "x"}, ASKED], Chat(ASKED["content"], unreadable="tool: 'x'")),
        (
            [{"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}, ASKED],
            Chat(ASKED["content"], unreadable="assistant calls tools"),
        ),
        ([7, ASKED], Chat(ASKED["content"], unreadable="7")),
    ],
)
def test_what_a_list_of_messages_says(messages: object, expected: Chat) -> None:
    assert read_chat(messages) == expected


def test_what_cannot_be_shown_whole_is_rejected_by_its_line(tmp_path: Path) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}
    found = chats(
        tmp_path,
        row(image, ASKED),
        row(ASKED, {"role": "assistant", "content": "They lay 7."}),
        row({"role": "system", "content": "<|im_end|> now"}, {**ASKED, "content": "Else?"}),
        row(ASKED),
    )
    assert reasons(found) == {1: {"chat_unreadable"}, 2: {"chat_reply"}, 3: {"control_tokens"}}


def test_a_policy_that_is_shown_one_message_gets_no_part_of_a_chat(tmp_path: Path) -> None:
    found = without_turns(chats(tmp_path, row(SYSTEM, ASKED), row({**ASKED, "content": "Else?"})))
    assert reasons(found) == {1: {"chat_context"}}
    assert "prompt_format.chat = true" in found.quarantine[0].message
    assert [prompt.problem for prompt in found.prompts] == ["Else?"]


def test_the_same_last_message_of_two_conversations_is_no_copy(tmp_path: Path) -> None:
    again = {"role": "user", "content": "And then how many are left?"}
    other = [{"role": "user", "content": "I own 9 hens."}, EARLIER[1]]
    found = chats(tmp_path, row(*EARLIER, again), row(*other, again, answer="9"), row(*EARLIER, again))
    assert reasons(found) == {1: {"duplicate_problem"}, 3: {"duplicate_copy"}}
    assert len(found.prompts) == 2


def test_contradictions_are_seen_within_a_conversation(tmp_path: Path) -> None:
    found = chats(tmp_path, row(*EARLIER, ASKED), row(*EARLIER, ASKED, answer="9"))
    assert reasons(found) == {1: {"contradictory_answer"}, 2: {"contradictory_answer"}}


def test_contamination_looks_at_the_whole_conversation_but_the_system_message() -> None:
    suite = PromptSet.of([make_prompt("And then?", "1", turns=(("user", "I own 5 hens and sell 4 of them."),))])
    same = make_prompt("And then?", "1", turns=(("system", "Be brief."), ("user", "I own 5 hens and sell 4 of them.")))
    other = make_prompt("And then?", "2", turns=(("user", "Anna has 3 cats and finds 2 more."),))
    prompts = PromptSet.of([same, other])
    found = {prompts[i].id: match.kind for i, match in find_overlap(prompts, {"exam": suite})}
    assert found == {same.id: "exact"}


def test_an_edited_turn_is_told_as_such() -> None:
    old, new = (make_prompt("And then?", "1", turns=(("user", text),)) for text in ("I own 5.", "I own 6."))
    (edit,) = difference(PromptSet.of([old]), PromptSet.of([new])).edited
    assert edit.what == "turns"


def test_a_set_with_turns_survives_the_disk_and_one_without_has_the_form_it_had(tmp_path: Path) -> None:
    plain, chat = make_prompt("What is 1+1?", "2"), make_prompt("And 2?", "4", turns=TURNS)
    PromptSet.of([plain]).write_parquet(tmp_path / "plain.parquet")
    PromptSet.of([plain, chat]).write_parquet(tmp_path / "chat.parquet")
    assert pq.read_schema(tmp_path / "plain.parquet").names == ["id", "problem", "answer", "source", "level", "subject"]
    assert pq.read_schema(tmp_path / "plain.parquet").metadata[b"cures.promptset.schema"] == b"1"
    assert list(PromptSet.read_parquet(tmp_path / "chat.parquet")) == sorted([plain, chat], key=lambda p: p.id)
    assert list(PromptSet.read_parquet(tmp_path / "plain.parquet")) == [plain]
    again = load_prompts(DataConfig(path=str(tmp_path / "chat.parquet"))).prompts
    assert list(again) == sorted([plain, chat], key=lambda p: p.id)


def test_a_column_of_turns_must_be_readable(tmp_path: Path) -> None:
    rows = [
        {"problem": f"How many eggs in {i} nests?", "answer": "7", "turns": turns}
        for i, turns in enumerate((json.dumps(TURNS), "[]", '[["tool", "x"]]', "{", 3, ""))
    ]
    found = load_prompts(DataConfig(path=str(jsonl(tmp_path / "set.jsonl", rows))))
    assert reasons(found) == {n: {"chat_unreadable"} for n in (2, 3, 4)}
    assert [prompt.turns for prompt in found.prompts if prompt.turns] == [TURNS]


def test_lengths_count_all_turns(tmp_path: Path) -> None:
    long = {"role": "user", "content": "Hens. " * 20}
    found = chats(tmp_path, row(long, ASKED), max_problem_chars=100)
    assert reasons(found) == {1: {"oversize_problem"}}
    found = chats(tmp_path, row(long, ASKED), max_problem_tokens=100, count_tokens=len)
    assert reasons(found) == {1: {"too_many_tokens"}}


def test_people_read_who_said_what() -> None:
    assert transcript(make_prompt("And then?", "1")) == "And then?"
    assert transcript(make_prompt("And then?", "1", turns=TURNS[:1])) == "system: Answer in base 7.\nuser: And then?"
    assert conversation("And then?", written(TURNS)) == "I own 5 hens.\nNoted.\nAnd then?"
