from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.config.data import ColumnsConfig, DataConfig
from cures_core.errors import ConfigError, DataRejected, TryAgain
from cures_core.prompts import Loaded, annotated, load_prompts, loading, reasons_table, require_acceptable
from cures_core.prompts.checks import TextJudge
from cures_core.prompts.duplicates import repeated_groups
from tests.cures_core.prompts.files import jsonl, loaded, reasons

A, B = "How many eggs has Ann?", "How many pens has Bob?"


def row(problem: str, answer: str = "7", **other: Any) -> dict[str, Any]:
    return {"problem": problem, "answer": answer, **other}


# Rows against rows


def test_copies_are_dropped_and_the_first_stays(tmp_path: Path) -> None:
    result = loaded(tmp_path, [row(A), row(B), row(A), row(A, "7.0")])
    assert reasons(result) == {1: {"duplicate_problem"}, 3: {"duplicate_copy"}, 4: {"duplicate_copy"}}
    assert (sorted(result.lines.tolist()), result.dropped, result.rejected) == ([1, 2], 2, 0)


def test_copies_written_otherwise_are_copies(tmp_path: Path) -> None:
    result = loaded(tmp_path, [row("What is $\\dfrac{1}{2} + x$, Ann?"), row("what is  $\\frac12+x$ , ann")])
    assert reasons(result) == {1: {"duplicate_problem_normalised"}, 2: {"duplicate_copy"}}


def test_contradicting_rows_are_all_rejected(tmp_path: Path) -> None:
    result = loaded(tmp_path, [row(A, "40"), row(A, "46"), row(A, "46"), row(B)])
    assert reasons(result) == {n: {"contradictory_answer"} for n in (1, 2, 3)}
    assert (len(result.prompts), result.rejected) == (1, 3)
    assert "line 2: 46" in result.quarantine[0].message


class Judge(TextJudge):
    """What the math verifier says of the answers below."""

    def same_answer(self, first: str, second: str) -> bool:
        return {first, second} <= {"\\frac{\\pi}{2}", "\\pi/2", "0.5\\pi"} or first == second


def test_the_verifier_decides_whether_answers_contradict(tmp_path: Path) -> None:
    rows = [row(A, "\\frac{\\pi}{2}"), row(A, "\\pi/2"), row(A, "0.5\\pi"), row(B, "7"), row(B, "7.0")]
    result = loaded(tmp_path, rows, judge=Judge())
    assert reasons(result) == {
        1: {"duplicate_problem"},
        **{n: {"duplicate_copy"} for n in (2, 3)},
        **{n: {"contradictory_answer"} for n in (4, 5)},  # to this verifier only texts are the same
    }
    assert set(reasons(loaded(tmp_path, rows[:3]))) == {1, 2, 3}  # without it, as far as text shows


def test_many_answers_to_one_problem_ask_the_verifier_only_so_often(tmp_path: Path) -> None:
    asked = []

    class Different(TextJudge):
        def same_answer(self, first: str, second: str) -> bool:
            asked.append((first, second))
            return False

    result = loaded(tmp_path, [row(A, str(n)) for n in range(200)], judge=Different())
    assert result.counts == {"contradictory_answer": 200}
    assert len(asked) <= 200 * 8


@pytest.mark.parametrize("mark", ["missing", "keine Angabe", "see the notes", "Unanswerable."])
def test_a_frequent_word_that_no_problem_holds_is_no_answer(tmp_path: Path, mark: str) -> None:
    rows = [row(f"How many eggs has Ann in basket {n}?", str(n)) for n in range(20)]
    rows += [row(f"How many pens has Bob in box {n}?", mark) for n in range(3)]
    result = loaded(tmp_path, rows)
    assert result.counts == {"answer_not_math": 3}
    assert "answers 3 rows and is in no problem" in result.quarantine[0].message
    assert loaded(tmp_path, rows[:-1]).counts == {}  # two rows are not many
    asked = row(f"Is the number of hens odd, even or {mark}", "odd")
    assert loaded(tmp_path, [*rows, asked]).counts == {}  # it is an answer that a problem offers


def test_yes_and_no_and_sets_of_word_answers_are_left_alone(tmp_path: Path) -> None:
    questions = [row(f"Are there more than {n} eggs?", ("yes", "No", "TRUE", "false")[n % 4]) for n in range(40)]
    assert loaded(tmp_path, questions).counts == {}
    words = ("ellipse", "circle", "parabola", "line", "point")
    shapes = [row(f"Which shape has equation number {n}?", words[n % 5]) for n in range(40)]
    assert loaded(tmp_path, shapes).counts == {}


def test_other_answers_to_a_text_in_other_case_stay(tmp_path: Path) -> None:
    """Case can carry meaning: nothing is thrown away on a guess."""
    result = loaded(tmp_path, [row("Find A if a = 3.", "1"), row("Find a if A = 3.", "2")])
    assert reasons(result) == {n: {"duplicate_problem_normalised"} for n in (1, 2)}
    assert len(result.prompts) == 2


def test_operators_and_parentheses_tell_problems_apart(tmp_path: Path) -> None:
    rows = [row("What is $88 \\div (4 \\div 2)$?", "44"), row("What is $88 \\div 4 \\div 2$?", "11"),
            row("3-4=", "9"), row("3+4=", "7"), row("34=", "34")]  # fmt: skip
    assert loaded(tmp_path, rows).counts == {}


def test_repeated_ids_are_pointed_out(tmp_path: Path) -> None:
    result = loaded(tmp_path, [row(A, id="x"), row(B, id="x"), row("Why, Carl?", id=7), row("Who, Dora?")])
    assert reasons(result) == {1: {"duplicate_id"}, 2: {"duplicate_id"}}
    assert len(result.prompts) == 4


def test_copies_are_found_across_flushes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_FLUSH_ROWS", 3)
    rows = [row(f"How many eggs has number {i % 8}?", str(i % 8)) for i in range(16)]
    result = loaded(tmp_path, rows)
    assert (len(result.prompts), result.dropped) == (8, 8)
    assert sorted(result.lines.tolist()) == list(range(1, 9))


@given(st.lists(st.integers(0, 5), max_size=30))
def test_groups_are_the_repeated_keys(keys: list[int]) -> None:
    groups = [group.tolist() for group in repeated_groups(np.array(keys, dtype=np.uint64))]
    expected = [[i for i, k in enumerate(keys) if k == key] for key in dict.fromkeys(keys) if keys.count(key) > 1]
    assert groups == expected


# Accounts


def test_lines_point_at_their_prompts(tmp_path: Path) -> None:
    rows = [row(f"How many eggs has number {i}?", str(i)) for i in range(20)]
    result = loaded(tmp_path, ["", *rows])
    for prompt, line in zip(result.prompts, result.lines, strict=True):
        assert int(prompt.answer) == line - 2


def test_file_order_changes_nothing_but_lines(tmp_path: Path) -> None:
    rows = [row(f"How many eggs has number {i}?", str(i)) for i in range(20)]
    first, second = loaded(tmp_path, rows), loaded(tmp_path, rows[::-1])
    assert first.prompts.digest == second.prompts.digest
    assert first.file_digest != second.file_digest


def test_details_are_bounded_and_counts_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAX_QUARANTINE", 5)
    monkeypatch.setattr(loading, "MAX_EXAMPLES", 3)
    result = loaded(tmp_path, [*["{"] * 20, *[row(f"<p>{i} eggs, Ann?", str(i)) for i in range(20)]])
    assert (len(result.quarantine), len(result.warnings)) == (5, 3)
    assert result.counts == {"html": 20, "truncated_json": 20}
    assert (result.rows_read, result.rejected) == (40, 20)


def test_flaws_found_later_take_their_rows_out(tmp_path: Path) -> None:
    result = loaded(tmp_path, [row(A), row(B), row("Why, Carl?")])
    first, second = result.prompts[0], result.prompts[1]
    after = annotated(result, [(0, ("eval_leak", "s")), (1, ("eval_near", "s"))])
    assert first not in list(after.prompts)
    assert second in list(after.prompts)
    assert (after.dropped, after.rows_read, after.counts) == (1, 3, {"eval_leak": 1, "eval_near": 1})
    assert len(result.prompts) == 3  # the original is untouched
    twice = annotated(result, [(0, ("eval_leak", "s")), (0, ("eval_leak", "t"))])
    assert (twice.dropped, twice.rows_read, twice.counts) == (1, 3, {"eval_leak": 2})
    for prompt, line in zip(after.prompts, after.lines, strict=True):
        assert prompt == result.prompts[result.lines.tolist().index(line)]


def test_rows_of_two_versions_of_a_file_are_not_mixed(tmp_path: Path) -> None:
    class SomebodyWrites(TextJudge):
        def check_gold(self, answer: str) -> None:
            with (tmp_path / "set.jsonl").open("a") as f:
                f.write("{}")

    with pytest.raises(TryAgain, match="changed while it was read"):
        loaded(tmp_path, [row(A)], judge=SomebodyWrites())


# What is acceptable


def sized(tmp_path: Path, good: int, bad: int) -> Loaded:
    rows = [row(f"How many eggs has number {i}?", str(i)) for i in range(good)]
    return loaded(tmp_path, [*rows, *[row(f"Bad row {i}", "") for i in range(bad)]])


@pytest.mark.parametrize(
    ("bad", "share", "passes"), [(5, 0.05, True), (6, 0.05, False), (6, 0.06, True), (0, 0.0, True), (1, 0.0, False)]
)
def test_the_threshold_counts_rejected_rows(bad: int, share: float, passes: bool, tmp_path: Path) -> None:
    result = sized(tmp_path, 100 - bad, bad)
    cfg = DataConfig(path="set.jsonl", max_reject_share=share)
    if passes:
        require_acceptable(result, cfg)
    else:
        with pytest.raises(DataRejected, match=f"{bad} of 100 rows rejected"):
            require_acceptable(result, cfg)


def test_copies_do_not_count_against_the_threshold(tmp_path: Path) -> None:
    result = loaded(tmp_path, [row(A)] * 10)
    require_acceptable(result, DataConfig(path="set.jsonl", max_reject_share=0))


@pytest.mark.parametrize("rows", [[], [""], ['{"problem": "p", "answer": ""}']])
def test_a_set_without_prompts_is_refused(rows: list[str], tmp_path: Path) -> None:
    result = loaded(tmp_path, rows)
    with pytest.raises(DataRejected):
        require_acceptable(result, DataConfig(path="set.jsonl", max_reject_share=1))


def test_the_table_names_the_first_place(tmp_path: Path) -> None:
    (line,) = reasons_table(sized(tmp_path, 3, 2))
    assert line.split()[:2] == ["2", "empty_answer"]
    assert "set.jsonl:4: the answer is empty. Fill it in, or drop the row." in line


# Every option changes something


CHAT = '{"problem": [{"role": "user", "content": "How many eggs?"}], "answer": "7"}'


@pytest.mark.parametrize(
    ("option", "rows", "before", "after"),
    [
        ({"max_row_bytes": 64}, [row("How many " + "very " * 20 + "big eggs?")], set(), {"row_too_long"}),
        ({"max_problem_chars": 5}, [row(A)], set(), {"oversize_problem"}),
        ({"max_answer_chars": 3}, [row(A, "12345")], set(), {"oversize_answer"}),
        ({"problem_rule": "chat"}, [CHAT], {"wrong_type_problem"}, set()),
        ({"problem_rule": "chat"}, [row(A)], set(), {"no_user_message"}),
        ({"answer_rule": "gsm8k"}, [row(A, "3+4\n#### 7")], {"answer_not_final"}, set()),
        ({"answer_rule": "boxed"}, [row(A, "so \\boxed{7}")], {"answer_not_final"}, set()),
        ({"columns": ColumnsConfig(answer="b")}, [row(A, "", b="7")], {"empty_answer"}, set()),
        ({"columns": ColumnsConfig(problem="b")}, [row("", b=A)], {"empty_problem"}, set()),
        ({"columns": ColumnsConfig(solution="b")}, [row(A, b="#### 8")], set(), {"answer_inconsistent_with_solution"}),
        ({"columns": ColumnsConfig(id="b")}, [row(A, b=1), row(B, b=1)], set(), {"duplicate_id"}),
        ({"columns": ColumnsConfig(level="b")}, [row(A, b="?")], set(), {"bad_level"}),
        ({"columns": ColumnsConfig(source="b")}, [row(A, b=["x"])], set(), {"bad_label"}),
        ({"columns": ColumnsConfig(subject="b")}, [row(A, b=["x"])], set(), {"bad_label"}),
    ],
)  # fmt: skip
def test_options_change_what_is_found(
    option: dict[str, Any], rows: list[Any], before: set[str], after: set[str], tmp_path: Path
) -> None:
    assert set(loaded(tmp_path, rows).counts) == before
    assert set(loaded(tmp_path, rows, **option).counts) == after


def test_labels_come_from_the_named_columns(tmp_path: Path) -> None:
    columns = ColumnsConfig(source="a", level="b", subject="c")
    (prompt,) = loaded(
        tmp_path, [row(A, a="web", b="4", c="eggs", source="x", level="y", subject="z")], columns=columns
    ).prompts
    assert (prompt.source, prompt.level, prompt.subject) == ("web", "4", "eggs")


def test_the_format_can_be_forced(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.csv", [row(A), row(B)])
    assert len(load_prompts(DataConfig(path=str(path), format="jsonl")).prompts) == 2
    with pytest.raises(ConfigError, match=r"no problem column|no answer column"):
        load_prompts(DataConfig(path=str(path)))
