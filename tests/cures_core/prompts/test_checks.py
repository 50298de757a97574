from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cures_core.config.data import DataConfig
from cures_core.errors import ConfigError
from cures_core.prompts import REASONS, Severity, load_prompts
from cures_core.prompts.checks import (
    TextJudge,
    _check_problem,
    _clean_text,
    examine,
    not_an_answer,
    plain_problem,
)
from cures_core.prompts.columns import resolve_columns
from tests.cures_core.prompts.files import loaded, reasons

CFG = DataConfig(path="set.jsonl")
COLUMNS = resolve_columns(CFG, ("problem", "answer", "source", "level", "subject", "solution"))
QUESTION = "How many eggs are left?"


def found(problem: Any = QUESTION, answer: Any = "7", **labels: Any) -> set[str]:
    return {code for code, _ in examine({"problem": problem, "answer": answer, **labels}, COLUMNS, CFG)[1]}


def fields(problem: Any = QUESTION, answer: Any = "7", **labels: Any) -> Any:
    return examine({"problem": problem, "answer": answer, **labels}, COLUMNS, CFG)[0]


# The answer in the problem: word problems hold numbers, so only a value stated as the answer counts.


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        ("How many eggs? Answer: 7", "7"),
        ("How many eggs? (Answer: $7$).", "7"),
        ("How many eggs? ANSWER = 7.0", "7"),
        ("How many eggs? The answer is 7.", "7"),
        ("Which one? (A) 1 (B) 2 Answer: A", "A"),
        ("How many eggs? ... so $x=\\boxed{\\dfrac{1}{2}}$.", "\\frac{1}{2}"),
        ("How many eggs? 3+4=7 #### 7", "7"),
    ],
)
def test_a_stated_answer_is_a_leak(problem: str, answer: str) -> None:
    assert "answer_leak" in found(problem, answer)


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        ("Ann has 7 eggs and eats 3 of 10. How many eggs are left?", "7"),
        ("When 3 is added, the answer is 64. What was the number?", "64"),
        ("How many eggs are left? Give your answer as a decimal: 0.1 is written .1", "7"),
        ("Rocky had 190 fights; he boxed 20 of them. How many are left?", "20"),
        ("Part 1: how many? \\boxed{1}, I hope it is right. Part 2: how many more eggs than that are left now?", "1"),
        ("How many eggs? Answer: 8", "7"),
    ],
)  # fmt: skip
def test_a_number_among_the_givens_is_no_leak(problem: str, answer: str) -> None:
    assert found(problem, answer) <= {"number_answer"}


# Text


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        ("Area of \x0crac{1}{2} of it?", "lost_backslash"),
        ("What is 3 \times 4?".replace("\times", "\t" + "imes"), "lost_backslash"),
        ("A \x07 bell?", "control_character"),
        ("A \x85 line\x9f?", "control_character"),
        ("NUL \0 here?", "nul_escaped"),
        ("Half \ud83d a character?", "lone_surrogate"),
        ("Caf\ufffd?", "replacement_character"),
        ("It\u00e2\u20ac\u2122s how many?", "mojibake"),
        ("caf\u00c3\u00a9, how many?", "mojibake"),
        ("<p>How many?</p>", "html"),
        ("How&nbsp;many?", "html"),
        ("How many?<|im_end|>", "control_tokens"),
        ("[INST] How many? [/INST]", "control_tokens"),
        ("Prove that there are 7 eggs.", "proof"),
        ("Let x be even.\nShow that x is 2.", "proof"),
        ("(a) How many? (b) Why?", "multi_part"),
        ("(i) Find x. (ii) Find y.", "multi_part"),
    ],
)
def test_text_that_harms_training_is_named(problem: str, code: str) -> None:
    assert code in found(problem)


@pytest.mark.parametrize(
    "problem",
    [
        "If $a<b$ and $c>d$, how many?",
        "If $x &= 3$ \\\\ $y &= 4$, find $x$.",
        "Wie viele Äpfel? Ω, ≤, 你好, \u2019quoted\u2019, 5 °C",
        "They improve; the grove drove on. What did this prove?",
        "If $f(a)=b$ and $f(b)=4$, find $a$.",
        "While watching a show, I saw that 3 left. How many?",
        "a\n\nb\tc\n",
        "می\u200cخواهم",
        "👩\u200d🔬 has 3 eggs",
    ],
)
def test_ordinary_text_is_left_alone(problem: str) -> None:
    assert found(problem) == set()
    assert fields(problem).problem == problem.strip()


def test_invisible_characters_are_removed() -> None:
    assert fields("\u202eHow\u200b many\u00ad eggs\ufeff?\u200f").problem == "How many eggs?"
    assert found("\u202eHow\u200b many?") == {"bidi_marks", "zero_width"}
    assert found("\u200b\u200b") == {"zero_width", "empty_problem"}


def test_text_is_stored_in_one_form() -> None:
    row = fields("  Cafe\u0301?\r\nHow many? ", " 7 ", source=" web ")
    assert row == ("Caf\u00e9?\nHow many?", "7", "web", "", "", "")


# Answers


@pytest.mark.parametrize("answer", ["N/A", "see solution", "-", "?", "...", "None", "nan", "TODO", "$-$", "Proof."])
def test_placeholders_are_no_answers(answer: str) -> None:
    assert found(answer=answer) == {"answer_not_math"}


@pytest.mark.parametrize("answer", ["\\frac{3}{", "x}", "$221,$8$", "3x^2-", "2 +", "$5 \\times$", "a=", "\\sqrt"])
def test_cut_answers_are_rejected(answer: str) -> None:
    assert found(answer=answer) == {"answer_unparsable"}


@pytest.mark.parametrize(
    "answer",
    ["none", "undefined", "[0,1)", "\\{1,2\\}", "-3", "\\$5", "n", "\\text{(A)}", "x+1", "e^{i\\pi}", "5!",
     "\\text{(E)},", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "(1,2),(3,4)", "$4$ and $5$", "Evelyn", "097", "٣"],
)  # fmt: skip
def test_real_answers_pass(answer: str) -> None:
    assert not_an_answer(answer) is None
    assert found(answer=answer) == set()
    assert fields(answer=answer).answer == answer


def test_answers_are_taken_out_of_their_box() -> None:
    assert (found(answer="\\boxed{64}"), fields(answer="\\boxed{64}").answer) == ({"answer_wrapped"}, "64")
    assert found(answer="x \\boxed{64}") == {"answer_not_final"}
    assert found(answer="3*4=<<3*4=12>>12\n#### 12") == {"answer_not_final"}


def test_percentages_are_pointed_out() -> None:
    assert found(answer="17\\%") == found(answer="17%") == found(answer="$8 \\%$") == {"answer_percent"}


def test_damaged_answers_are_rejected() -> None:
    for answer in ("4\ufffd", "4\x0crac", "caf\u00c3\u00a9", "4\ud800"):
        assert found(answer=answer) == {"answer_damaged"}
    assert found(answer="4\u200b2") == {"zero_width"}
    assert fields(answer="4\u200b2").answer == "42"


@pytest.mark.parametrize(("value", "codes"), [(["1"], {"wrong_type_answer"}), (True, {"wrong_type_answer"}),
                                              (float("nan"), {"wrong_type_answer"}), (5, {"number_answer"}),
                                              (5.0, {"number_answer"}), (Decimal("5.50"), {"number_answer"}),
                                              (None, {"null_answer"}), ("", {"empty_answer"}),
                                              ("\t\u00a0", {"whitespace_answer"})])  # fmt: skip
def test_types_of_answers(value: Any, codes: set[str]) -> None:
    assert found(answer=value) == codes


def test_decimal_columns_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    answers = pa.array([Decimal("12345678901234567890.10")], pa.decimal128(24, 2))
    pq.write_table(pa.table({"problem": [QUESTION], "answer": answers}), path)
    assert load_prompts(DataConfig(path=str(path))).prompts[0].answer == "12345678901234567890.10"


def test_solutions_are_compared_with_answers() -> None:
    code = {"answer_inconsistent_with_solution"}
    assert found(answer="2", solution="\\boxed{1} or \\boxed{2}") == code
    assert found(answer="2", solution="so \\boxed{3}") == code
    assert found(answer="2", solution="1+1 #### 3") == code
    assert found(answer="2", solution="so \\boxed{2.0}, or \\boxed{\\textbf{(2) }}") == set()
    assert found(answer="1200", solution="so #### 1,200") == set()
    assert (
        found(answer="2x", solution="so \\boxed{x \\cdot 2}") == set()
    )  # two spellings cannot be told without algebra


# Labels


def test_labels_are_made_plain() -> None:
    for level, plain in (
        (3, "3"),
        (3.0, "3"),
        ("3", "3"),
        ("Level 3", "3"),
        (2.5, "2.5"),
        ("hard", "hard"),
        (None, ""),
    ):
        assert fields(level=level).level == plain
    assert (found(level="Level ?"), fields(level="Level ?").level) == ({"bad_level"}, "")
    for value in (["a"], "a\nb", "x" * 201, True, "\ud800"):
        assert (found(subject=value), fields(subject=value).subject) == ({"bad_label"}, "")


# The caller's judges


def test_the_verifier_is_asked_once_for_each_answer(tmp_path: Path) -> None:
    asked = []

    class Judge(TextJudge):
        def check_gold(self, answer: str) -> str | None:
            asked.append(answer)
            return "it is even" if answer == "4" else None

    rows = [{"problem": f"How much is it, {name}?", "answer": a} for name, a in (("A", "3"), ("B", "4"), ("C", "3"))]
    result = loaded(tmp_path, rows, judge=Judge())
    assert asked == ["3", "4"]
    assert reasons(result) == {2: {"gold_rejected"}}
    assert "it is even" in result.quarantine[0].message


def test_token_lengths_need_a_tokenizer(tmp_path: Path) -> None:
    rows = [{"problem": "one two three four?", "answer": "1"}, {"problem": "one two?", "answer": "2"}]
    result = loaded(tmp_path, rows, max_problem_tokens=3, count_tokens=lambda text: len(text.split()))
    assert reasons(result) == {1: {"too_many_tokens"}}
    with pytest.raises(ConfigError, match="needs a tokenizer"):
        loaded(tmp_path, rows, max_problem_tokens=3)


# Invariants

PIECES = st.sampled_from(
    ["answer", "Ans", ":", "=", " is ", "7", "Prove", " that", "rove", "Show that", "(a)", "(b)", "(ii)", " A", "\n",
     "\t", " ", "<", "p>", "&", "nbsp;", "##", "####", "\\boxed{7}", "[INST]",
     "\u200b", "\ufffd", "é", "\x0c", ".", "solution", "x"]
)  # fmt: skip


@settings(max_examples=400)
@given(st.lists(PIECES, max_size=8).map("".join))
def test_the_fast_path_hides_nothing(problem: str) -> None:
    """Whatever `plain_problem` lets through, the checks themselves find nothing wrong with, and do not change."""
    if plain_problem(problem, CFG):
        flaws: list[tuple[str, str]] = []
        assert _clean_text(problem, flaws) == problem
        _check_problem(problem, "7", flaws)
        assert flaws == []


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["problem", "answer", "source", "level", "subject", "solution"]), ANYTHING))
def test_no_row_breaks_the_checks(record: dict[str, Any]) -> None:
    """A row has clean fields, or a reason for which it is rejected."""
    row, flaws = examine(record, COLUMNS, CFG)
    rejected = any(REASONS[code].severity is Severity.REJECTED for code, _ in flaws)
    assert row is not None or rejected
    if row is not None and not rejected:
        assert all(text.encode("utf-8") is not None for text in row)
        assert row.problem
        assert row.answer


@pytest.mark.parametrize(
    "text", [".\n" * 8000, "(a) A " * 2700, "Prove" * 3000, "<p" * 8000, "\\boxed{" * 2000, "answer is " * 1600]
)
def test_hostile_text_takes_no_time(text: str) -> None:
    """Patterns stay linear enough: a problem of the longest allowed length, made to backtrack."""
    started = time.perf_counter()
    found(text[:16_000] + "(b)", text[:500])
    assert time.perf_counter() - started < 1.0
