"""A step of several rounds: what each may spend, what the step holds in the end, and what is said of misuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import Field, model_validator

from cures_core.config.curriculum import CustomConfig, UniformConfig
from cures_core.curriculum import Posterior, Strategy, StrategyOptions, make_curriculum
from cures_core.curriculum.strategies.strategy import merged
from cures_core.errors import ConfigError, CurriculumMisuse
from cures_core.terms import FinishReason, Group, Outcome, Prompt, Request, Rollout, Verdict
from cures_core.testing.curriculum import answered, prompt_set


class Thrice(Strategy):
    """The same three prompts, two rollouts each, in as many rounds as the budget has room for."""

    def choose(self, budget: int, round_: int) -> tuple[np.ndarray, np.ndarray]:
        self.budgets = [*getattr(self, "budgets", []), budget]
        self.note(**{f"round_{round_}": float(budget)})
        num = min(3, budget // 2)
        return np.arange(num), np.full(num, 2)

    def finished(self, told: Sequence[Group]) -> str:
        return ""


class Options(StrategyOptions):
    low: float = Field(default=0.0, ge=0)
    high: float = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Options:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


class Optioned(Thrice):
    options_type = Options


class Optionless(Thrice):
    options_type = StrategyOptions


def config(strategy: type[Strategy] = Thrice, **more: Any) -> CustomConfig:
    name = f"{__name__}:{strategy.__name__}"
    return CustomConfig.model_validate(
        {"type": "custom", "strategy": name, "prompts_per_step": 3, "rollouts_per_step": 14, **more}
    )


@pytest.fixture
def thrice(monkeypatch: pytest.MonkeyPatch) -> Thrice:
    monkeypatch.setenv("CURES_PLUGINS", __name__)
    prompts, cfg = prompt_set(8), config()
    made = make_curriculum(cfg, prompts, Posterior.fresh(prompts, cfg.posterior), 1)
    assert isinstance(made, Thrice)
    return made


def test_a_round_may_spend_what_the_rounds_before_have_left(thrice: Thrice) -> None:
    while (batch := thrice.ready()) is None:
        thrice.tell([answered(request, [Outcome.CORRECT, Outcome.WRONG]) for request in thrice.ask(10)])
    assert thrice.budgets == [10, 8, 2]  # of ten that were offered, and of fourteen that a step has
    assert batch.figures["step_rollouts"] == 14
    assert [batch.figures[f"round_{i}"] for i in range(3)] == [10.0, 8.0, 2.0]
    assert [g.request.n for g in sorted(batch.groups, key=lambda g: g.request.id)] == [6, 4, 4]


def group(name: str, prompt: str, outcomes: Sequence[Outcome]) -> Group:
    request = Request(name, Prompt(prompt, "p", "a"), len(outcomes), 5)
    rollouts = [Rollout(name, i, (1,), (2,), (0.0,), f"{name}-{i}", FinishReason.STOP) for i in range(len(outcomes))]
    return Group(request, rollouts, [Verdict(outcome) for outcome in outcomes])


def test_rounds_of_a_prompt_become_one_group_under_the_first_request() -> None:
    first = group("1-0-0", "a", [Outcome.CORRECT, Outcome.WRONG])
    alone = group("1-0-1", "b", [Outcome.UNKNOWN])
    second = group("1-1-0", "a", [Outcome.WRONG])
    one, other = merged([first, alone, second])
    assert other is alone
    assert (one.request.id, one.request.n, one.request.prompt.id) == ("1-0-0", 3, "a")
    assert [rollout.text for rollout in one.rollouts] == ["1-0-0-0", "1-0-0-1", "1-1-0-0"]
    assert [verdict.outcome for verdict in one.verdicts] == [Outcome.CORRECT, Outcome.WRONG, Outcome.WRONG]


def test_what_is_told_wrong_is_refused_in_words_and_not_counted(thrice: Thrice) -> None:
    first, *_ = told = [answered(request, [Outcome.CORRECT, Outcome.WRONG]) for request in thrice.ask(6)]
    before = thrice.posterior.own_counts()[0].copy()
    for groups, words in (
        ([group("9-9-9", "a", [Outcome.CORRECT])], "request 9-9-9 was not asked for, or was told before; nothing was"),
        ([first, first], f"request {first.request.id} occurs twice in one tell; nothing was counted"),
        (
            [Group(first.request, first.rollouts[:1], first.verdicts[:1])],
            f"request {first.request.id} asked for 2 rollouts and was told 1; nothing was counted",
        ),
    ):
        with pytest.raises(CurriculumMisuse) as caught:
            thrice.tell(groups)
        assert words in str(caught.value)
    assert np.array_equal(thrice.posterior.own_counts()[0], before)
    thrice.tell(told)


def test_nothing_is_deferred_where_no_step_is_going_on(thrice: Thrice) -> None:
    with pytest.raises(CurriculumMisuse) as caught:
        thrice.defer()
    assert str(caught.value) == "no step is going on: there is nothing to defer"


def test_prompts_and_posterior_that_cannot_be_drawn_from_are_told() -> None:
    cfg = UniformConfig(prompts_per_step=2, rollouts_per_step=4)
    with pytest.raises(ConfigError) as caught:
        make_curriculum(cfg, prompt_set(4), Posterior.fresh(prompt_set(5), cfg.posterior), 0)
    assert str(caught.value) == "posterior and prompt set differ: migrate the posterior first"


@pytest.mark.parametrize(
    ("strategy", "options", "said"),
    [
        (Optioned, {"luck": 1}, "curriculum.options.luck: Optioned has no such option; its options are low, high"),
        (Optionless, {"x": 1}, "curriculum.options.x: Optionless has no such option; its options are none"),
        (Optioned, {"low": -1}, "curriculum.options.low: Input should be greater than or equal to 0 (got -1)"),
        (Optioned, {"low": 2}, "curriculum.options: low is above high"),
    ],
)
def test_bad_options_are_told_by_name(strategy: type[Strategy], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        strategy.read_options(config(strategy, options=options))
    assert str(caught.value) == said
