"""Rows with worked solutions: every one is taught as a rollout would be, or left out with a reason and a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cures_core.config.policy import SupervisedWarmStart
from cures_core.config.rollout import PromptFormat
from cures_core.errors import ConfigError, DataRejected
from cures_core.policy.solutions import REASONS, Lesson, Lessons, read_lessons
from cures_core.prompts import PromptSet, make_prompt
from tests.cures_core.rollout.tiny import character_tokenizer

CHAT = (
    "{% for m in messages %}{{ m['role'] }}={{ m['content'] }}\n{% endfor %}assistant="
    "{% if opened is defined and opened %}q{% endif %}"
)
TOKENIZER = character_tokenizer(chat_template=CHAT)
END = TOKENIZER.eos_token_id


def rows(folder: Path, made: Sequence[object], name: str = "set.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in made))
    return path


def read(path: Path, fmt: PromptFormat | None = None, suites: Any = None, context: Any = None, **cfg: Any) -> Lessons:
    options = SupervisedWarmStart(**{"max_reject_share": 1.0, **cfg})
    return read_lessons(options, path, TOKENIZER, fmt or PromptFormat(), context, suites)


def texts(found: Lessons) -> list[tuple[str, str]]:
    return [
        (TOKENIZER.decode(one.prompt_ids), TOKENIZER.decode(one.token_ids, skip_special_tokens=True))
        for one in found.taught
    ]


def test_a_solution_is_taught_as_a_rollout_is_asked_for_and_ended(tmp_path: Path) -> None:
    path = rows(tmp_path, [{"problem": "1+1", "solution": " so 2\n", "answer": "2"}])
    fmt = PromptFormat(template="ask {problem}\nsay")
    found = read(path, fmt, template=" {solution}")
    assert texts(found) == [("ask 1+1\nsay", " so 2")]
    assert found.taught[0].token_ids[-1] == END


def test_columns_go_by_their_usual_names_or_are_named(tmp_path: Path) -> None:
    usual = rows(tmp_path, [{"question": "1+1", "answer": "it is 2"}], "usual.jsonl")
    assert texts(read(usual)) == [("1+1", "it is 2")]
    named = rows(tmp_path, [{"q": "1+1", "why": "it is 2", "answer": "2"}], "named.jsonl")
    assert texts(read(named, problem="q", solution="why")) == [("1+1", "it is 2")]
    with pytest.raises(ConfigError, match="no column 'why'"):
        read(usual, solution="why")


def test_parquet_is_read_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"problem": ["1+1"], "solution": ["it is 2"]}), tmp_path / "set.parquet")
    assert texts(read(tmp_path / "set.parquet")) == [("1+1", "it is 2")]


def test_whole_conversations_are_taught_by_their_last_reply(tmp_path: Path) -> None:
    said = [("system", "be brief"), ("user", "1+1"), ("assistant", "2"), ("user", "and 2"), ("assistant", "4")]
    path = rows(tmp_path, [{"messages": [{"role": role, "content": text} for role, text in said]}])
    found = read(path, PromptFormat(chat=True), problem="messages", solution="messages")
    assert texts(found) == [("system=be brief\nuser=1+1\nassistant=2\nuser=and 2\nassistant=", "4")]
    assert read_of_plain(path) == {"no_chat": 1}


def read_of_plain(path: Path) -> dict[str, int]:
    with pytest.raises(DataRejected, match=r"1 of 1 rows with solutions are unfit .*\n .*prompt_format.chat is false"):
        read(path, problem="messages", solution="messages")
    return {"no_chat": 1}


GOOD = {"problem": "1+1", "solution": "it is 2"}
BAD: dict[str, object] = {
    "unreadable": "{",
    "no_problem": {"problem": " ", "solution": "2"},
    "empty_solution": {"problem": "1+1", "solution": None},
    "holds_stop": {"problem": "1+1", "solution": "it is\nnot 2"},
    "never_answers": {"problem": "1+1", "solution": "q it is 2"},
    "too_long": {"problem": "1+1", "solution": "it is " * 10 + "2"},
}
STRICT = PromptFormat(stop=("\n",), thinking=("q", "z"))


@pytest.mark.parametrize("reason", BAD)
def test_what_cannot_be_taught_is_counted_with_its_line(reason: str, tmp_path: Path) -> None:
    found = read(rows(tmp_path, [GOOD, BAD[reason], "", GOOD, BAD[reason]]), STRICT, max_tokens=30)
    assert (found.rows, len(found.taught), dict(found.left_out)) == (4, 2, {reason: 2})
    assert found.told() == [f"2 rows left out: {REASONS[reason]} (first: 2, 5)"]


def test_a_prompt_that_opens_the_thinking_wants_it_closed(tmp_path: Path) -> None:
    fmt = PromptFormat(chat=True, thinking=("q", "z"), chat_template_kwargs={"opened": True})
    path = rows(tmp_path, [GOOD, {"problem": "1+1", "solution": "1 and 1 z so 2"}])
    assert dict(read(path, fmt).left_out) == {"never_answers": 1}
    assert texts(read(path, fmt, template="hm z {solution}"))[0] == ("user=1+1\nassistant=q", "hm z it is 2")


def test_the_model_s_context_is_a_limit_too(tmp_path: Path) -> None:
    path = rows(tmp_path, [GOOD, {**GOOD, "solution": "2"}])
    assert dict(read(path, context=8).left_out) == {"too_long": 1}


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_too_many_unfit_rows_refuse_the_whole_before_any_work(bad: int, tmp_path: Path) -> None:
    path = rows(tmp_path, [GOOD] * (20 - bad) + [BAD["no_problem"]] * bad)
    if bad < 2:
        assert len(read(path, max_reject_share=0.05).taught) == 20 - bad
    else:
        with pytest.raises(DataRejected, match=r"2 of 20 rows with solutions are unfit \(allowed 5.0%"):
            read(path, max_reject_share=0.05)


def test_a_file_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRejected, match="0 could be taught"):
        read(rows(tmp_path, [BAD["no_problem"]]))


def test_problems_of_a_suite_are_not_taught(tmp_path: Path) -> None:
    suites = {"exam": PromptSet.of([make_prompt("How many eggs do seven hens lay?", "7")])}
    path = rows(tmp_path, [{"problem": "how many eggs do seven hens lay", "solution": "7"}, GOOD])
    found = read(path, suites=suites, max_reject_share=0.0)
    assert (dict(found.left_out), len(found.taught)) == ({"in_a_suite": 1}, 1)


def test_few_rows_are_drawn_by_seed(tmp_path: Path) -> None:
    path = rows(tmp_path, [{"problem": f"{i}+1", "solution": "so"} for i in range(40)])
    some, again, other = (texts(read(path, max_rows=7, seed=seed)) for seed in (1, 1, 2))
    assert len(some) == len(set(some)) == 7
    assert some == again
    assert some != other
    assert set(some) <= set(texts(read(path)))


def test_a_lesson_is_what_the_engine_would_have_returned() -> None:
    assert Lesson((1,), (2, END)).token_ids[-1] == END
