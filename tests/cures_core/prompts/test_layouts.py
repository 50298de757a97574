"""Published layouts are read without mapping by hand, and it is said which was taken and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cures_core.config.data import ColumnsConfig, DataConfig, LayoutName
from cures_core.errors import ConfigError, DataRejected
from cures_core.prompts import Loaded, load_prompts, require_acceptable
from cures_core.prompts.layouts import LAYOUTS
from tests.cures_core.prompts.files import reasons

Rows = list[dict[str, Any]]
N = 12


def question(i: int) -> str:
    return f"A shelf has {i} red and {i + 4} blue books. How many books are on it?"


def user(i: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": question(i)}]


def verl(i: int) -> dict[str, Any]:
    """As verl's examples of preprocessing write their sets, and DAPO-Math-17k is published."""
    return {
        "data_source": "shelves",
        "prompt": user(i),
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(2 * i + 4)},
        "extra_info": {"index": i, "split": "train"},
    }


def skywork(i: int) -> dict[str, Any]:
    row = verl(i)
    row["reward_model"]["ground_truth"] = json.dumps([str(2 * i + 4)])
    return {**row, "extra_info": {"index": i, "model_difficulty": {"small": 3}}}


def dapo_processed(i: int) -> dict[str, Any]:
    answer = str(2 * i + 4)
    reward = {"style": "rule", "ground_truth": answer}
    return {
        "prompt": question(i),
        "solution": answer,
        "data_source": "s",
        "source_prompt": user(i),
        "reward_model": reward,
    }


def orz(i: int) -> dict[str, Any]:
    return {
        "0": {"from": "human", "value": question(i)},
        "1": {"from": "assistant", "ground_truth": {"value": str(2 * i + 4)}},
    }


def numina(i: int) -> dict[str, Any]:
    return {
        "problem": question(i),
        "solution": f"Add them: $\\boxed{{{2 * i + 4}}}$",
        "answer": str(2 * i + 4),
        "problem_type": "Algebra",
        "question_type": "math-word-problem",
        "problem_is_valid": "Yes",
        "solution_is_valid": "Yes",
        "source": "shelves",
        "synthetic": False,
    }


def openr1(i: int) -> dict[str, Any]:
    talk = [*user(i), {"role": "assistant", "content": "Add them."}]
    extra = {"uuid": f"u{i}", "generations": ["Add them."], "correctness_math_verify": [True], "messages": talk}
    return {**numina(i), **extra}


def big_math(i: int) -> dict[str, Any]:
    answer = str(2 * i + 4)
    domain = ["Mathematics -> Applied"]
    return {"problem": question(i), "answer": answer, "source": "s", "domain": domain, "llama8b_solve_rate": 0.5}


def gsm8k(i: int) -> dict[str, Any]:
    return {
        "question": question(i),
        "answer": f"{i} + {i + 4} = <<{i}+{i + 4}={2 * i + 4}>>{2 * i + 4}\n#### {2 * i + 4}",
    }


def math(i: int) -> dict[str, Any]:
    return {"problem": question(i), "level": "Level 2", "type": "Algebra", "solution": f"So $\\boxed{{{2 * i + 4}}}$."}


def plain(i: int) -> dict[str, Any]:
    return {"question": question(i), "answer": str(2 * i + 4)}


MAKERS = {
    "verl": verl,
    "verl-list": skywork,
    "verl-text": dapo_processed,
    "orz": orz,
    "numina-1.5": numina,
    "openr1": openr1,
    "big-math": big_math,
    "gsm8k": gsm8k,
    "math": math,
    "columns": plain,
}


def write(path: Path, rows: Rows) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(path: Path, **settings: Any) -> Loaded:
    return load_prompts(DataConfig(path=str(path), **settings))


def pairs(result: Loaded) -> set[tuple[str, str]]:
    return {(prompt.problem, prompt.answer) for prompt in result.prompts}


EXPECTED = {(question(i), str(2 * i + 4)) for i in range(N)}


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
@pytest.mark.parametrize("name", MAKERS)
def test_every_layout_is_recognised_and_read(name: str, ending: str, tmp_path: Path) -> None:
    result = load(write(tmp_path / f"set.{ending}", [MAKERS[name](i) for i in range(N)]))
    assert result.taken.layout == name
    assert pairs(result) == EXPECTED
    assert result.counts == {}


def test_every_layout_has_its_rows_here_and_its_name_in_the_configuration() -> None:
    assert {layout.name for layout in LAYOUTS} | {"columns"} == set(MAKERS)
    assert set(get_args(LayoutName)) == {"auto", *MAKERS}


@pytest.mark.parametrize("as_lines", [True, False])
def test_arrays_of_two_turns_are_rows(as_lines: bool, tmp_path: Path) -> None:
    arrays = [list(orz(i).values()) for i in range(N)]
    path = tmp_path / ("set.jsonl" if as_lines else "set.json")
    path.write_text("\n".join(map(json.dumps, arrays)) + "\n" if as_lines else json.dumps(arrays))
    assert (load(path).taken.layout, pairs(load(path))) == ("orz", EXPECTED)


def test_an_array_among_objects_is_no_row(tmp_path: Path) -> None:
    path = write(tmp_path / "set.jsonl", [plain(i) for i in range(N)])
    path.write_text(path.read_text() + "[1, 2]\n")
    assert reasons(load(path)) == {N + 1: {"not_an_object"}}


def test_it_says_what_was_taken_and_why(tmp_path: Path) -> None:
    result = load(write(tmp_path / "set.jsonl", [verl(i) for i in range(N)]))
    assert str(result.taken) == (
        "read as verl: problem from prompt (chat), answer from reward_model.ground_truth (field); in the first 12 rows "
        "prompt is messages, reward_model.ground_truth is text (as in Parquet of verl, DAPO-Math-17k)"
    )
    both = [{**plain(i), "prompt": "?"} for i in range(N)]
    result = load(write(tmp_path / "both.jsonl", both))
    assert "question, prompt could all be the problem" in result.taken.why


@pytest.mark.parametrize(
    ("rows", "why"), [("{'q': 1}\n\n", "none of the first 2 rows could be read"), ("", "it has no rows")]
)
def test_where_no_row_could_be_read_that_is_why(rows: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(rows)
    assert load(path).taken.why == why


def test_a_refusal_says_how_the_file_was_read(tmp_path: Path) -> None:
    result = load(
        write(tmp_path / "set.jsonl", [{**verl(i), "prompt": [{"role": "system", "content": "x"}]} for i in range(N)])
    )
    with pytest.raises(DataRejected, match=r"read as verl: problem from prompt \(chat\)"):
        require_acceptable(result, DataConfig(path="x"))


def test_a_layout_fits_where_nine_rows_in_ten_do(tmp_path: Path) -> None:
    rows = [gsm8k(i) for i in range(20)]
    few, many = rows[:18] + [plain(i) for i in range(18, 20)], rows[:17] + [plain(i) for i in range(17, 20)]
    assert load(write(tmp_path / "few.jsonl", few)).taken.layout == "gsm8k"
    assert load(write(tmp_path / "many.jsonl", many)).taken.layout == "columns"


def test_what_is_configured_goes_before_a_guess(tmp_path: Path) -> None:
    path = write(tmp_path / "set.jsonl", [{**math(i), "key": str(i)} for i in range(N)])
    result = load(path, columns=ColumnsConfig(answer="key"))
    assert (result.taken.layout, result.taken.answer) == ("columns", "key")
    assert load(path, columns=ColumnsConfig(level="key")).taken.layout == "math"
    assert {p.level for p in load(path, columns=ColumnsConfig(level="key")).prompts} == {str(i) for i in range(N)}
    with pytest.raises(ConfigError, match="layout orz does not fit: there is no column 0; there is no column 1"):
        load(path, layout="orz")
    assert load(path, layout="math").taken.why == "configured"


def test_lists_of_several_answers_are_no_answer(tmp_path: Path) -> None:
    rows = [skywork(i) for i in range(20)]
    rows[3]["reward_model"]["ground_truth"] = json.dumps(["1", "2"])
    assert reasons(load(write(tmp_path / "set.jsonl", rows))) == {4: {"answer_rule_found_nothing"}}


OTHERS = (
    ([{"role": "system", "content": "Answer in base 7."}, *user(1)], "system: Answer in base 7."),
    ([{"role": "user", "content": "I own 5."}, {"role": "assistant", "content": "Noted."}, *user(1)], "user: I own 5."),
    ([*user(1), {"role": "assistant", "content": "<think>"}], "assistant: <think>"),
)


@pytest.mark.parametrize(("messages", "seen"), OTHERS)
def test_no_turn_is_left_out_silently(messages: list[dict[str, str]], seen: str, tmp_path: Path) -> None:
    rows = [*(verl(i) for i in range(2, 30)), {**verl(1), "prompt": messages}]
    path = write(tmp_path / "set.jsonl", rows)
    result = load(path)
    if seen.startswith("assistant"):
        assert reasons(result) == {29: {"chat_reply"}}
        assert 'problem_rule = "last_user"' in result.quarantine[0].message
    else:
        assert reasons(result) == {}
        (kept,) = (prompt for prompt in result.prompts if prompt.turns)
        assert kept.turns == tuple((m["role"], m["content"]) for m in messages[:-1])
    told = load(path, problem_rule="last_user")
    assert (told.taken.layout, reasons(told)) == ("verl", {29: {"chat_context_left_out"}})
    assert (question(1), "6") in pairs(told)


def test_empty_messages_are_no_context(tmp_path: Path) -> None:
    rows = [{**verl(i), "prompt": [{"role": "system", "content": ""}, *user(i)]} for i in range(N)]
    assert load(write(tmp_path / "set.parquet", rows)).counts == {}
