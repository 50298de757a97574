"""Which prompts a step trains on, with how many rollouts each, and what is remembered of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cures_core.config.base import OwnCode, Strict
from cures_core.config.marks import Result, Settled
from cures_core.config.retired import without_retired
from cures_core.config.urls import LocalName


class PosteriorConfig(Strict):
    """How evidence becomes a posterior of a prompt's pass rate. All strategies keep one, if only to measure it."""

    fading: Result[Annotated[float, Field(ge=0, le=1)] | Literal["fitted"]] = 0.97
    """Gamma: factor on a prompt's counts per step, because the policy moves. 1 never forgets, 0 forgets at once.
    `fitted`: the one of 0.9 to 1 that predicts best what comes out, looked at anew in every step."""
    group_fading: Result[float] = Field(default=0.95, ge=0, le=1)
    """The same for the counts of a group (source x level)."""
    pooling: Result[Literal["group", "none"]] = "group"
    """Where the prior's rate comes from. `group`: the rate of the prompt's group; `none`: one half for all."""
    strength: Result[Annotated[float, Field(gt=0)] | Literal["fitted"]] = 3.0
    """Mass k of the pooled prior, in rollouts: the prior is Beta(k * m, k * (1 - m)), m the group's rate. `fitted`: the
    one of 0.3 to 10 that predicts best; small where the prompts of a group differ much."""
    group_strength: Result[float] = Field(default=2.0, gt=0)
    """Mass with which a group's rate is shrunk to the rate of the whole set, in rollouts."""
    dead_prior: Result[Annotated[float, Field(ge=0, lt=1)] | Literal["fitted"]] = 0.1
    """Prior share of dead prompts: unsolvable or mislabelled ones (wrong gold answer, unreadable), which no policy ever
    gets right. 0 switches this off. `fitted`: the one that what was seen so far makes likeliest, 0.1 before that."""
    dead_fading: Result[float] = Field(default=1.0, gt=0, le=1)
    """Factor per step on the suspicion that a prompt is dead, towards `dead_prior`: below 1 it is tried again later,
    when the policy may have learnt what it takes. 1 never forgets."""

    _retired = model_validator(mode="before")(without_retired("curriculum.posterior"))  # for who makes one in Python


Evidence = Annotated[PosteriorConfig, Settled("the evidence was counted under it")]


class EqualAllocation(Strict):
    """Every drawn prompt gets the same number of rollouts."""

    type: Literal["equal"] = "equal"


class NeymanAllocation(Strict):
    """n_i so that the sum of sigma_i^2 / n_i is smallest, sigma the expected spread (arXiv 2510.01037, 3.2) times the
    root of the probability that the prompt is not dead."""

    type: Literal["neyman"] = "neyman"
    min_rollouts: Result[int] = Field(default=2, ge=2)
    """Fewest rollouts of a prompt; a group of one has no group baseline."""
    max_rollouts: Result[int] = Field(default=32, ge=2)
    """Most rollouts of a prompt."""

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> NeymanAllocation:
        if self.min_rollouts > self.max_rollouts:
            raise ValueError(f"min_rollouts {self.min_rollouts} is above max_rollouts {self.max_rollouts}")
        return self


class ScreenAllocation(Strict):
    """One rollout for every drawn prompt, then what is left of the budget for those that failed it, in equal parts.

    Meant for `training.solved_advantage` = 1: what passes at once is then a group of one with that advantage.
    """

    type: Literal["screen"] = "screen"
    max_rollouts: Result[int] = Field(default=5, ge=2)
    """Most rollouts of a prompt, the first one included."""


class SingleAllocation(Strict):
    """One rollout for every drawn prompt: as many prompts as a step has rollouts, for an advantage without groups."""

    type: Literal["single"] = "single"


class ProportionalWeighting(Strict):
    """Probability in proportion to signal^power."""

    type: Literal["proportional"] = "proportional"
    power: Result[float] = Field(default=4.0, gt=0)
    """4 with a spread is (p(1-p))^2: a spread alone is too flat, because solved prompts keep a tenth of it."""


class SoftmaxWeighting(Strict):
    """Probability in proportion to exp(signal / temperature), as derived in the paper."""

    type: Literal["softmax"] = "softmax"
    temperature: Result[float] = Field(gt=0)
    """tau: towards 0 only the strongest signals are drawn, towards infinity all alike."""


Weighting = Annotated[ProportionalWeighting | SoftmaxWeighting, Field(discriminator="type")]


class SourceQuota(Strict):
    """Bounds on the share of the prompts drawn that come from one source."""

    source: Result[LocalName]
    """The source, as in the prompt set."""
    min: Result[float] = Field(default=0.0, ge=0, le=1)
    """Least share of a step's prompts."""
    max: Result[float] = Field(default=1.0, ge=0, le=1)
    """Largest share."""

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> SourceQuota:
        if self.min > self.max:
            raise ValueError(f"source {self.source!r}: min {self.min:g} is above max {self.max:g}")
        return self


class StrategyConfig(Strict):
    """What all strategies have."""

    prompts_per_step: Result[int] = Field(ge=1)
    """Prompts drawn for a step."""
    rollouts_per_step: Result[int] = Field(ge=2)
    """Budget: rollouts of a step, of all kinds."""
    quotas: tuple[SourceQuota, ...] = ()
    """Bounds on the share of draws by source. Inside a source, and among the sources without a quota, the strategy's
    own weights hold. Over steps the shares are kept to within one prompt."""
    posterior: Evidence = PosteriorConfig()
    """How evidence becomes a posterior."""

    @field_validator("quotas")
    @classmethod
    def _quotas_are_possible(cls, quotas: tuple[SourceQuota, ...]) -> tuple[SourceQuota, ...]:
        names = [quota.source for quota in quotas]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"source {twice[0]!r} has two quotas")
        if (total := sum(quota.min for quota in quotas)) > 1 + 1e-9:
            raise ValueError(f"the least shares of the quotas sum to {total:g}, more than there is")
        return quotas

    @property
    def fewest_rollouts(self) -> int:
        """Of a drawn prompt. Two if nothing else is said: a group of one has no group baseline."""
        return 2

    def check_budget(self, low: int, high: int | None = None) -> None:
        """Raise `ValueError` where a step's prompts with `low` to `high` rollouts each cannot take up its budget."""
        num, budget = self.prompts_per_step, self.rollouts_per_step
        if budget < low * num:
            raise ValueError(
                f"rollouts_per_step {budget} is below {low} x prompts_per_step {num}: "
                + ("a group of one has no group baseline" if low > 1 else "one for each")
            )
        if high is not None and budget > high * num:
            raise ValueError(
                f"{num} prompts of {low} to {high} rollouts take {low * num} to {high * num} rollouts, "
                f"rollouts_per_step is {budget}"
            )

    @model_validator(mode="after")
    def _budget_feeds_every_prompt(self) -> StrategyConfig:
        self.check_budget(self.fewest_rollouts)
        return self


class UniformConfig(StrategyConfig):
    """Every prompt equally often, equal groups: GRPO or REINFORCE++, as the advantage says."""

    type: Literal["uniform"] = "uniform"


class CuresConfig(StrategyConfig):
    """Prompts by the signal their posterior promises, drawn without replacement."""

    type: Literal["cures"] = "cures"
    signal: Result[Literal["thompson", "thompson_failure", "plugin_spread", "expected_variance"]] = "thompson"
    """What a prompt is worth, in terms of its posterior. `thompson`: spread of one draw; `thompson_failure`: 1 - p of
    one draw, for prompts out of reach that are not dead (`dead_prior`); `plugin_spread`: s of the mean (the paper);
    `expected_variance`: E[p(1-p)] in closed form, known as learnability."""
    weighting: Weighting = ProportionalWeighting()
    """How the signal becomes a probability."""
    explore: Result[float] = Field(default=0.05, ge=0, le=1)
    """Share of uniform drawing mixed in, so that no prompt is given up for good."""
    allocation: Annotated[
        EqualAllocation | NeymanAllocation | ScreenAllocation | SingleAllocation, Field(discriminator="type")
    ] = EqualAllocation()
    """How the budget is split over the drawn prompts."""

    @property
    def fewest_rollouts(self) -> int:
        if isinstance(self.allocation, NeymanAllocation):
            return self.allocation.min_rollouts
        return 1 if isinstance(self.allocation, ScreenAllocation | SingleAllocation) else 2

    @model_validator(mode="after")
    def _bounds_hold_the_budget(self) -> CuresConfig:
        if isinstance(self.allocation, NeymanAllocation):
            self.check_budget(self.fewest_rollouts, self.allocation.max_rollouts)
        if isinstance(self.allocation, SingleAllocation):
            self.check_budget(1, 1)
        return self


class DapoConfig(StrategyConfig):
    """Uniform prompts, drawn until enough groups are informative or the budget is spent; the others are discarded."""

    type: Literal["dapo"] = "dapo"
    group_size: Result[int] = Field(default=8, ge=2)
    """Rollouts of each prompt. `prompts_per_step` is how many informative groups a step wants."""

    @model_validator(mode="after")
    def _a_step_can_be_complete(self) -> DapoConfig:
        needed = self.group_size * self.prompts_per_step
        if needed > self.rollouts_per_step:
            raise ValueError(
                f"{self.prompts_per_step} groups of {self.group_size} take {needed} rollouts, rollouts_per_step is "
                f"{self.rollouts_per_step}: no step could be complete. Raise it well above {needed}"
            )
        return self


class ProtocolSettings(Strict):
    """The published protocol: disjoint subsets, each probed, then trained on, then forgotten."""

    subsets: Result[int] = Field(default=15, ge=1)
    """Disjoint subsets of the prompt set, taken in turn."""
    steps_per_subset: Result[int] = Field(default=10, ge=1)
    """Training steps on a subset, after its probing."""
    probe: Result[int] = Field(default=4, ge=1)
    """Rollouts of every prompt of a subset before it is trained on; paid from the budgets of steps that train on
    nothing. Prompts that have as many from the prior are not probed again."""


class PaperConfig(StrategyConfig, ProtocolSettings):
    """The published protocol, sampling and allocation."""

    type: Literal["paper"] = "paper"
    posterior: Evidence = PosteriorConfig(fading=1.0, group_fading=1.0, pooling="none", strength=2.0, dead_prior=0.0)
    """As published: Beta(1, 1), nothing fades within a subset."""
    temperature: Result[float] = Field(default=0.1, gt=0)
    """tau of the prompt distribution exp(s / tau)."""
    max_rollouts: Result[int] = Field(default=32, ge=2)
    """Most rollouts of a prompt; the fewest are 2."""


class CustomConfig(StrategyConfig):
    """A strategy of your own."""

    type: Literal["custom"] = "custom"
    strategy: Annotated[Result[OwnCode], Settled("the state of one strategy is none of another")]
    """`package.module:Class`, a subclass of `cures_core.curriculum.Strategy`. CURES_PLUGINS must name it where the run
    runs. The text of its file is part of the result: where it changes, epochs are trained again. What the file imports
    is not looked at."""
    options: Result[dict[LocalName, bool | int | float | LocalName]] = Field(default_factory=dict)
    """Settings of the class's own: it says which there are (`Strategy.options_type`)."""

    @property
    def fewest_rollouts(self) -> int:
        """One: what a strategy of one's own wants beyond that, it says itself (`Strategy.fewest_rollouts`)."""
        return 1


CurriculumConfig = Annotated[
    CuresConfig | UniformConfig | DapoConfig | PaperConfig | CustomConfig,
    Field(discriminator="type"),
    BeforeValidator(without_retired("curriculum")),
]
