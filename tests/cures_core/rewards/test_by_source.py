"""Every prompt is judged by the verifier that is responsible for it: its row's, its source's, else the default."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from cures_core.config.rewards import BySourceConfig, NumericConfig, RewardConfig
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError
from cures_core.rewards import make_verifier
from cures_core.rewards.verifier import Verifier
from cures_core.terms import Prompt
from cures_core.testing.verifier import VerifierExam

NUMBERS: dict[str, Any] = {"type": "numeric"}
LETTERS: dict[str, Any] = {"sources": ["quiz"], "verifier": {"type": "choice"}}
TEXTS: dict[str, Any] = {"sources": ["spelling", "names"], "verifier": {"type": "exact"}}
NAMED: dict[str, Any] = {"name": "tagged", "verifier": {"type": "regex", "pattern": "<(.*?)>"}}
MIXED: dict[str, Any] = {**NUMBERS, "by_source": [LETTERS, TEXTS, NAMED]}


def reward(values: Any) -> Any:
    return TypeAdapter[RewardConfig](RewardConfig).validate_python(values)


class TestBySource(VerifierExam):
    """With prompts that say nothing of themselves, it is its default."""

    right = (("so 7", "7"), ("The answer is 12.", "12"))
    wrong = (("so 8", "7"), ("so 8", "12"))

    def make(self) -> Verifier:
        return make_verifier(reward(MIXED))


def test_a_row_s_verifier_wins_over_its_source_s_and_that_over_the_default() -> None:
    items = [
        ("The answer is B", Prompt("1", "", "B", source="quiz")),
        ("the number 4", Prompt("2", "", "4", source="elsewhere")),
        ("the number 4", Prompt("3", "", "4", source="names")),  # letter by letter it is another text
        ("it is <x>", Prompt("4", "", "x", source="quiz", verifier="tagged")),
        ("the number 4", Prompt("5", "", "4", source="names", verifier="default")),
        ("C", Prompt("6", "", "C", source="names")),
    ]
    with make_verifier(reward(MIXED)) as verifier:
        verdicts = verifier.judge(items)
        assert [(v.outcome.value, v.rule) for v in verdicts] == [
            ("correct", "phrase"),
            ("correct", "last"),
            ("wrong", "exact"),
            ("correct", "regex"),
            ("correct", "last"),
            ("correct", "exact"),
        ]
        assert verifier.judge(items[::-1]) == verdicts[::-1]


def test_golds_are_looked_at_by_the_one_that_is_responsible() -> None:
    with make_verifier(reward(MIXED)) as verifier:
        assert verifier.check_gold("B") == "not a number"
        assert verifier.of("quiz", "").check_gold("B") is None
        assert verifier.of("quiz", "").check_gold("7") is not None
        assert verifier.of("spelling", "").same_answer("7", "7.0") is False
        assert verifier.of("", "").same_answer("7", "7.0") is True


def test_a_name_that_there_is_not_is_never_taken_for_the_default() -> None:
    with make_verifier(reward(MIXED)) as verifier, make_verifier(NumericConfig()) as plain:
        with pytest.raises(
            ConfigError, match="no verifier is called 'tagget'; there are default, choice, exact, tagged"
        ):
            verifier.of("quiz", "tagget")
        with pytest.raises(ConfigError, match=r"no verifier is called 'math': reward\.by_source configures none"):
            plain.of("quiz", "math")


def test_equal_verifiers_are_one_and_make_processes_only_when_asked() -> None:
    pattern = {"type": "regex", "pattern": "<(.*?)>"}
    entries = [{"name": name, "sources": [name], "verifier": pattern} for name in ("a", "b", "c")]
    with make_verifier(reward({**NUMBERS, "by_source": entries})) as verifier:
        assert verifier.of("a", "") is verifier.of("b", "") is verifier.of("", "c")
        verifier.judge([("7", Prompt("1", "", "7"))])
        assert verifier.of("a", "")._pool.counts["children"] == 0  # type: ignore[attr-defined]
        verifier.judge([("<7>", Prompt(name, "", "7", source=name)) for name in "abc"])
        assert verifier.of("a", "")._pool.counts["children"] == 1  # type: ignore[attr-defined]


def test_the_default_may_be_written_as_the_reward_itself() -> None:
    short, long = reward(MIXED), reward({"type": "by-source", "default": NUMBERS, "by_source": MIXED["by_source"]})
    assert short == long
    assert reward(short.model_dump(mode="json")) == short
    assert isinstance(short, BySourceConfig)
    assert short.sources == ("quiz", "spelling", "names")
    assert reward({"by_source": [LETTERS]}).default.type == "exact"
    assert isinstance(reward(NUMBERS), NumericConfig)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "at least 1"),
        ([LETTERS, {**LETTERS, "name": "other"}], "source 'quiz' has two verifiers"),
        ([LETTERS, {"sources": ["x"], "verifier": {"type": "choice"}}], "two verifiers are called 'choice'"),
        ([{**LETTERS, "name": "default"}], "two verifiers are called 'default'"),
        ([{**LETTERS, "name": "No Name"}], "pattern"),
        ([{"sources": ["x"]}], "verifier"),
        ([{"sources": ["x"], "verifier": MIXED}], "Extra inputs are not permitted"),
    ],
)
def test_who_is_responsible_is_certain(entries: list[Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        reward({**NUMBERS, "by_source": entries})


def test_a_column_of_names_needs_verifiers_to_name() -> None:
    profile: dict[str, Any] = {
        "data": {"path": "p", "columns": {"verifier": "checker"}},
        "rollout": {"max_new_tokens": 4},
        "training": {"learning_rate": 1e-3},
    }
    with pytest.raises(ValidationError, match=r"data: columns.verifier is 'checker', and reward.by_source configures"):
        RunConfig.model_validate({**profile, "reward": NUMBERS})
    RunConfig.model_validate({**profile, "reward": MIXED})
    suite = {"name": "exam", "path": "s", "columns": {"verifier": "checker"}, "reward": NUMBERS}
    with pytest.raises(ValidationError, match=r"suite exam: columns\.verifier"):
        RunConfig.model_validate({**profile, "reward": MIXED, "evaluation": {"suites": [suite]}})
