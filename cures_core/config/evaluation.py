"""Which suites a checkpoint is scored on, how, when, and what a candidate must show to be promoted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from cures_core.config.base import Seed, Strict
from cures_core.config.data import SuiteConfig
from cures_core.config.marks import Operation, Placement, Result, Settled
from cures_core.config.rewards import RewardConfig
from cures_core.config.rollout import PromptFormat
from cures_core.config.urls import ClusterUrl


class SuiteSampling(Strict):
    """How the items of a suite are answered and judged."""

    samples: Result[int] = Field(default=1, ge=1)
    """Completions of each item (k); small suites are averaged over several."""
    temperature: Result[float] = Field(default=1.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    greedy: Result[bool] = False
    """Score one greedy completion of each item beside the sampled ones."""
    limit: Result[int | None] = Field(default=None, ge=1)
    """Use only this many items, chosen by content id. None: all."""
    prompt_format: PromptFormat | None = None
    """How this suite's prompts are written. None: as in training (`rollout.prompt_format`)."""
    max_new_tokens: Result[int | None] = Field(default=None, ge=1)
    """Most tokens of a completion here. None: `rollout.max_new_tokens`."""
    reward: RewardConfig | None = None
    """How this suite's completions are judged. None: as in training (`reward`)."""


class EvaluatedSuite(SuiteSampling, SuiteConfig):
    """A suite with its sampling."""


class Sharding(Strict):
    """How the generation of an evaluation is spread over processes or machines. No figure depends on it."""

    shards: Operation[int] = Field(default=1, ge=1)
    """Parts that the items are divided into. Each loads the policy in a process of its own."""
    runner: Placement[Literal["threads", "ray"]] = "threads"
    """`threads`: all shards at once on this machine; `ray`: on a Ray cluster (extra `ray`)."""
    ray_address: Placement[ClusterUrl | None] = None
    """Cluster, as in ray://head:10001. None: a Ray of its own on this machine, for the time of the evaluation."""
    ray_gpus: Placement[float] = Field(default=0.0, ge=0)
    """GPUs that Ray keeps free for each shard."""

    @model_validator(mode="after")
    def _ray_settings_need_ray(self) -> Sharding:
        if self.runner != "ray" and (self.ray_address is not None or self.ray_gpus):
            raise ValueError('ray_address and ray_gpus need runner = "ray"')
        return self


class EvaluationConfig(Strict):
    """Scores before training, after it, and between where wanted."""

    suites: Annotated[tuple[EvaluatedSuite, ...], Settled("they are validated together with the prompts")] = ()
    """Evaluation suites."""
    when: Operation[Literal["ends", "every-epoch"]] = "ends"
    """`ends`: before training and after the last epoch; `every-epoch`: after each epoch too. Adds scores, changes
    none."""
    seed: Result[Seed] = 20_000
    """Seed of the completions: common to all checkpoints, so that comparisons are paired."""
    resamples: Result[int] = Field(default=2000, ge=100)
    """Bootstrap resamples of an interval."""
    confidence: Result[float] = Field(default=0.95, gt=0.5, lt=1)
    """Coverage of the intervals."""
    chunk_prompts: Operation[int] = Field(default=64, ge=1)
    """Items per saved chunk: what a killed evaluation loses at most."""
    sharding: Sharding = Sharding()
    """How generation is spread over processes or machines."""

    @field_validator("suites")
    @classmethod
    def _names_differ(cls, suites: tuple[EvaluatedSuite, ...]) -> tuple[EvaluatedSuite, ...]:
        names = [suite.name for suite in suites]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two suites are called {twice[0]}")
        return suites

    def due(self, epoch: int, last: int) -> bool:
        """Is the checkpoint after `epoch` of `last` to be scored?"""
        return epoch == last or self.when == "every-epoch"


class PromotionConfig(Strict):
    """The gate: a candidate takes the place of the incumbent only if the paired gain's interval says so."""

    model: Placement[str] = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """Name of the pointer `models/<model>`: where a promoted checkpoint goes."""
    suites: Result[tuple[str, ...]]
    """Suites that must show the gain; each on its own."""
    min_effect: Result[float] = Field(default=0.0, ge=0, lt=1)
    """The lower end of the paired gain's interval must lie above this."""
    margins: Result[dict[str, float]] = Field(default_factory=dict)
    """Non-inferiority: suite -> the largest loss that is tolerated there, 0..1. The lower end of its paired gain's
    interval must lie above minus this. For suites that need not gain, but must not suffer."""
    max_unknown_share: Result[float] = Field(default=1.0, ge=0, le=1)
    """Largest share of completions without a verdict, of either policy, in each suite of the gate: above it the scores
    say too little. A suite without any verdict promotes nothing, whatever this says."""
    max_contaminated_share: Result[float] = Field(default=0.0, ge=0, le=1)
    """Largest share of a suite's items that the candidate was trained on. There are none, unless
    `data.contamination` is warn: then this says how many are too many."""

    @field_validator("margins")
    @classmethod
    def _margins_are_shares(cls, margins: dict[str, float]) -> dict[str, float]:
        if odd := [name for name, margin in margins.items() if not 0 <= margin < 1]:
            raise ValueError(f"the margin of {odd[0]} is {margins[odd[0]]}; use 0 up to 1")
        return margins

    @property
    def compared(self) -> tuple[str, ...]:
        """All suites the gate looks at, those that must gain first."""
        return (*self.suites, *(name for name in self.margins if name not in self.suites))

    @model_validator(mode="after")
    def _names_a_suite(self) -> PromotionConfig:
        if not self.suites:
            raise ValueError("suites: name at least one")
        if both := [name for name in self.margins if name in self.suites]:
            raise ValueError(f"{both[0]} is in suites and in margins: it must gain, or must not lose; choose one")
        return self
