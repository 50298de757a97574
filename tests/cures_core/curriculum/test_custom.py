"""Strategies of a user's own: what they may say of themselves, and that it is checked before any work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cures_core.config.curriculum import CustomConfig
from cures_core.curriculum import Strategy, StrategyOptions
from cures_core.curriculum.strategies.custom import check_strategy
from cures_core.errors import ConfigError
from cures_core.prompts import PromptSet
from cures_core.testing.curriculum import CurriculumExam, prompt_set, step
from tests.cures_core.curriculum.test_strategies import fresh

SMALL: dict[str, Any] = {"prompts_per_step": 4, "rollouts_per_step": 32}
EXAMPLES = "tests.cures_core.curriculum.example_strategy"
EXAMPLE = f"{EXAMPLES}:LongestAgo"


def custom(name: str = "LongestAgo", **settings: Any) -> CustomConfig:
    return CustomConfig(**{**SMALL, **settings}, strategy=f"{EXAMPLES}:{name}")


class TestCustom(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(custom(), prompts, seed)


class TestWithAStateOfItsOwn(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(custom("OnceEach"), prompts, seed)


def test_options_arrive_with_their_types_and_defaults() -> None:
    assert fresh(custom(), prompt_set(8)).options.model_dump() == {"luck": 1.0}
    assert fresh(custom(options={"luck": 9}), prompt_set(8)).options.model_dump() == {"luck": 9.0}
    firsts = [
        {q.prompt.id for q in fresh(custom(options={"luck": luck}), prompt_set(60)).ask(32)} for luck in (0.0, 9.0)
    ]
    assert firsts[0] == set(prompt_set(60).ids[:4])
    assert firsts[1] != firsts[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"options": {"luk": 1.0}}, r"^curriculum\.options\.luk: LongestAgo has no such option; its options are luck$"),
        ({"options": {"luck": -1.0}}, r"^curriculum\.options\.luck: Input should be greater than or equal to 0"),
        (
            {"options": {"luck": "x", "a": 1}},
            r"\.luck: Input should be a valid number.*; curriculum\.options\.a",
        ),
        ({"rollouts_per_step": 7}, r"^curriculum: .*:LongestAgo: rollouts_per_step 7 is below 2 x prompts_per_step 4"),
        ({"prompts_per_step": 13, "rollouts_per_step": 26}, r"LongestAgo: 13 brings bad luck"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_strategy(custom(**settings))
    with pytest.raises(ConfigError, match=words):
        fresh(custom(**settings), prompt_set(30))


def test_a_strategy_may_do_with_one_rollout_a_prompt() -> None:
    asked, _ = step(fresh(custom("OnceEach", rollouts_per_step=4), prompt_set(8)), 0.5, np.random.default_rng(0))
    assert [q.n for q in asked] == [1] * 4


def test_a_strategy_counts_in_its_own_way_and_never_what_was_refused() -> None:
    curriculum = fresh(custom("OnceEach"), prompt_set(8))
    step(curriculum, 1.0, np.random.default_rng(0))
    assert curriculum.posterior.successes.sum() == 2  # half of the four
    assert curriculum.state_dict()["visits"].sum() == 4


def test_the_state_of_one_is_none_of_another_and_that_of_an_earlier_version_is_read() -> None:
    one, other = fresh(custom(), prompt_set(8)), fresh(custom("OnceEach"), prompt_set(8))
    state = one.state_dict()
    with pytest.raises(ConfigError, match=r"of the strategy .*:LongestAgo, this one is .*:OnceEach$"):
        other.load_state_dict(state)
    fresh(custom(), prompt_set(8)).load_state_dict({**state, "type": "custom"})


def test_the_members_that_the_docs_list_are_there() -> None:
    text = Path("docs/curriculum.md").read_text(encoding="utf-8").partition("| member |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    names = {name for cell in cells for name in re.findall(r"`(\w+)", cell)}
    assert {"choose", "count", "check", "options_type", "rng", "told_so_far"} <= names
    curriculum = fresh(custom(), prompt_set(8))
    assert [name for name in sorted(names) if not hasattr(curriculum, name)] == []


def test_without_declared_options_they_are_read_as_they_are() -> None:
    class Free(Strategy):
        def choose(self, budget: int, round_: int) -> Any:
            raise NotImplementedError

    assert type(Free.read_options(custom(options={"anything": 1}))) is StrategyOptions


@pytest.mark.parametrize(
    ("path", "message"),
    [("no.such.module:X", "cannot be imported"), ("json:nothing", "cannot be imported"), ("json:loads", "no subclass")],
)
def test_a_bad_dotted_path_is_named(path: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURES_PLUGINS", path)
    with pytest.raises(ConfigError, match=rf"^curriculum\.strategy: {path} .*{message}"):
        fresh(CustomConfig(**SMALL, strategy=path), prompt_set(8))
