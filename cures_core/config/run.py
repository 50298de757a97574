"""The whole configuration of a run: one model a concern, joined. The same model is the flow's parameter."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from cures_core.config.base import OwnCode, Seed, Strict
from cures_core.config.checkpoint import CheckpointConfig
from cures_core.config.curriculum import CuresConfig, CurriculumConfig, SingleAllocation
from cures_core.config.data import DataConfig, PromptFile
from cures_core.config.device import DeviceConfig
from cures_core.config.evaluation import EvaluationConfig, PromotionConfig
from cures_core.config.fork import Fork
from cures_core.config.kept_rollouts import KeptRolloutsConfig
from cures_core.config.marks import Later, Ongoing, Operation, Placement, Result
from cures_core.config.policy import PolicyConfig, PretrainedPolicy, WarmStartPolicy
from cures_core.config.prior import PriorConfig, SamplePrior
from cures_core.config.retrain import RetrainRule
from cures_core.config.rewards import BySourceConfig, ExactConfig, RewardConfig
from cures_core.config.rollout import RolloutConfig
from cures_core.config.snapshot import SnapshotConfig
from cures_core.config.storage import StoreConfig
from cures_core.config.tracking import TrackingConfig
from cures_core.config.training import STATE, TrainingConfig
from cures_core.faults import parse_fault


class RunConfig(Strict):
    """Everything that decides a run's result, and where it is kept."""

    name: Placement[str] = Field(default="run", pattern=r"^[a-z0-9][a-z0-9.-]{0,39}$")
    """Short name; run names start with it. Nothing is computed from it."""
    seed: Result[Seed] = 0
    """Seed of every random number of the run (the warm start has its own)."""
    epochs: Annotated[Result[int], Ongoing()] = Field(default=1, ge=1)
    """Training epochs: each is one retryable task with a snapshot of the posterior behind it. A result of the run, in
    the key of no stage: with more of them, those that were trained stay."""
    steps_per_epoch: Result[int] = Field(default=10, ge=1)
    """Optimizer steps of an epoch."""
    checkpoint_every: Operation[int] = Field(default=1, ge=1)
    """Steps between in-epoch checkpoints: what a killed epoch loses at most."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """How checkpoints are written and kept."""
    data: DataConfig
    """The prompt set."""
    policy: PolicyConfig = WarmStartPolicy()
    """The policy to train."""
    rollout: Annotated[RolloutConfig, Ongoing()]
    """How completions are generated."""
    reward: RewardConfig = ExactConfig()
    """How completions are judged."""
    prior: PriorConfig = SamplePrior()
    """How the first posterior is estimated."""
    curriculum: Annotated[CurriculumConfig, Ongoing(kind="the state of one strategy is none of another")] = CuresConfig(
        prompts_per_step=32, rollouts_per_step=256
    )
    """Which prompts are sampled, with how many rollouts each."""
    training: Annotated[TrainingConfig, Ongoing(kind=STATE)]
    """How the policy is updated."""
    evaluation: Annotated[EvaluationConfig, Ongoing()] = EvaluationConfig()
    """Suites scored before and after."""
    promotion: Annotated[PromotionConfig | None, Ongoing()] = None
    """When the new policy becomes the current one; None leaves the pointer alone."""
    retrain: RetrainRule = RetrainRule()
    """When a change of the prompt set is worth a run (`cures ci`)."""
    snapshot: SnapshotConfig = SnapshotConfig()
    """Where posterior snapshots are versioned."""
    store: StoreConfig = StoreConfig()
    """Where records and files are kept."""
    kept_rollouts: KeptRolloutsConfig = KeptRolloutsConfig()
    """Which rollouts of training are kept with their texts, to be read."""
    redact: Annotated[Result[OwnCode | None], Later()] = None
    """A function of yours, `(text: str) -> str`, that takes out what nobody may read before a problem or a completion
    is written into kept rollouts, scores' examples, reports or trackers. None: texts are written as they are."""
    tracking: TrackingConfig = TrackingConfig()
    """Experiment trackers; what a run computes and its name do not depend on them."""
    device: DeviceConfig = DeviceConfig()
    """Where the numbers are computed."""
    faults: Operation[tuple[str, ...]] = ()
    """Drills: `POINT=ACTION` pairs (`cures_core.faults`), each fired once a run. Does not change what is computed."""
    fork: Fork | None = None
    """What is taken over from another run; set by `cures run --resume RUN --set ...`, not by hand."""

    @field_validator("faults")
    @classmethod
    def _faults_parse(cls, faults: tuple[str, ...]) -> tuple[str, ...]:
        for text in faults:
            parse_fault(text)
        return faults

    @model_validator(mode="after")
    def _adapters_go_on_as_adapters(self) -> RunConfig:
        continues = isinstance(self.policy, PretrainedPolicy) and self.policy.adapters == "continue"
        if continues and self.training.lora is None:
            raise ValueError("policy.adapters is 'continue': set training.lora to what the adapters are like")
        return self

    @model_validator(mode="after")
    def _rows_that_name_a_verifier_have_some_to_choose_from(self) -> RunConfig:
        rewards: list[tuple[str, PromptFile, RewardConfig]] = [("data", self.data, self.reward)]
        rewards += [(f"suite {s.name}", s, s.reward or self.reward) for s in self.evaluation.suites]
        for what, file, reward in rewards:
            if file.columns.verifier is not None and not isinstance(reward, BySourceConfig):
                raise ValueError(
                    f"{what}: columns.verifier is {file.columns.verifier!r}, and reward.by_source configures no "
                    "verifiers that rows could name"
                )
        return self

    @model_validator(mode="after")
    def _single_rollouts_teach(self) -> RunConfig:
        singles = isinstance(self.curriculum, CuresConfig) and isinstance(self.curriculum.allocation, SingleAllocation)
        if singles and self.training.needs_groups and not self.training.solved_advantage:
            raise ValueError(
                f"curriculum.allocation is 'single', and training.advantage {self.training.advantage!r} compares the "
                "rollouts of a group: nothing would be learnt. Set training.advantage to 'posterior'"
            )
        return self

    @model_validator(mode="after")
    def _overlong_begins_within_the_limit(self) -> RunConfig:
        overlong, limit = self.training.overlong, self.rollout.max_new_tokens
        if overlong is not None and overlong.buffer_tokens > limit:
            raise ValueError(
                f"training.overlong.buffer_tokens {overlong.buffer_tokens} is above rollout.max_new_tokens {limit}: "
                "every completion would be punished"
            )
        return self

    @model_validator(mode="after")
    def _promotion_has_its_suites(self) -> RunConfig:
        if self.promotion is not None:
            known = [suite.name for suite in self.evaluation.suites]
            missing = [name for name in self.promotion.compared if name not in known]
            if missing and not known:
                raise ValueError(
                    f"evaluation.suites is empty, so nothing can say whether {self.promotion.model} is to be promoted: "
                    f"name {' and '.join(missing)} there, or run a copy of the profile without its [promotion]"
                )
            if missing:
                key = "suites" if missing[0] in self.promotion.suites else "margins"
                raise ValueError(f"promotion.{key} names {missing}, evaluation.suites has {known}")
        return self
