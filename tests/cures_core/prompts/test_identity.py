from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.errors import DataRejected
from cures_core.prompts import content_id, make_prompt

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


def test_ids_never_change() -> None:
    """Posteriors on disk are keyed by these: a change here forgets them all."""
    assert content_id("What is 2+3?", "5") == "e4e57534115091f0fc9a9fd36004b906"
    assert content_id("Café: $x^2$\n", "\\frac{1}{2}") == "420d9010564bf8de990998c39b39fc59"
    assert content_id("", "") == "be7ef46075405137346d84c07c4df356"


def test_unicode_forms_of_one_text_share_an_id() -> None:
    assert content_id("Cafe\u0301", "1") == content_id("Caf\u00e9", "1")
    assert make_prompt("Cafe\u0301", "1").problem == "Caf\u00e9"


def test_labels_are_not_content() -> None:
    assert make_prompt("p", "1", source="a", level="3").id == make_prompt("p", "1", subject="b").id


@given(TEXT, TEXT, st.integers(1, 5))
def test_moving_text_between_problem_and_answer_changes_the_id(problem: str, answer: str, n: int) -> None:
    head, tail = problem[:-n], problem[-n:]
    if tail:
        assert content_id(head, tail + answer) != content_id(problem, answer)


def test_half_a_character_is_refused() -> None:
    with pytest.raises(DataRejected, match="lone surrogate"):
        content_id("bad \ud83d", "1")
