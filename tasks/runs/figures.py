"""What each stage says of its outcome in its record: digests, counts, scores. One model a stage.

A figure that a record of an earlier version has not got has its default, and is not written when the record is written
again: only what was said is kept.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from cures_core.config.base import Strict

FIGURES: dict[str, type[Figures]] = {}
"""The figures of every stage, by its name: a model that names a stage enters itself."""


class _AsSaid(Strict):
    """Writes what it was given, and no default."""

    @model_serializer(mode="wrap")
    def _as_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}


class Figures(_AsSaid):
    """Base of the figures of all stages."""

    stage: ClassVar[str]
    """Name of the stage whose figures these are."""

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__()
        if "stage" in cls.__dict__:
            FIGURES[cls.stage] = cls


class ValidateFigures(Figures):
    """Of the clean prompt set and suites."""

    stage = "validate_dataset"

    digest: str
    """Content digest of the clean prompt set."""
    suites: dict[str, str] = Field(default_factory=dict)
    """Content digest of each clean suite."""
    prompts: int = 0
    """Prompts of the clean set."""
    rows: int = 0
    """Rows read."""
    rejected: int = 0
    """Rows refused as unusable."""
    dropped: int = 0
    """Rows left out as copies."""
    reasons: dict[str, int] = Field(default_factory=dict)
    """Rows by reason of their rejection or warning."""
    trained_on: dict[str, float] = Field(default_factory=dict)
    """Of each suite the share of items that the clean set holds too."""


class PolicyFigures(Figures):
    """Of the policy that training starts from."""

    stage = "prepare_policy"

    digest: str
    """Digest of its folder."""
    steps: float = 0.0
    """Steps of the warm start; 0 for a policy that is taken as it is."""
    loss: float | None = None
    """Loss of the warm start's last step, nats a token; None for a policy that is taken as it is."""
    tokens: int = 0
    """Tokens of worked solutions learnt from; 0 where there were none."""
    rows: int = 0
    """Rows with worked solutions read."""
    taught: int = 0
    """Rows of them that were taught."""
    left_out: dict[str, int] = Field(default_factory=dict)
    """The others by reason (`cures_core.policy.solutions.REASONS`)."""


class StateFigures(Figures):
    """What prior and epochs have in common: each ends with a posterior."""

    posterior_digest: str
    """SHA-256 of posterior.parquet."""
    rollouts: int
    """Of the prior, or of training so far."""
    tokens: int
    """Completion tokens of those rollouts."""
    step: int = 0
    """Optimizer steps so far; 0 for the prior."""
    checkpoint_digest: str = ""
    """SHA-256 of the checkpoint's manifest; empty for the prior, which has none."""
    weights_digest: str = ""
    """Content digest of the trained weights; empty for the prior, and in records of early versions."""
    calibration: dict[str, float] | None = None
    """Of the epoch's predicted pass rates: mae, pearson, brier, those that are defined; None for the prior."""
    reliability: tuple[dict[str, float], ...] = ()
    """Rows of the reliability plot: predicted, observed, rollouts."""


class PriorFigures(StateFigures):
    """Of the sample of rollouts that the first posterior is estimated from."""

    stage = "estimate_prior"

    prompts: int
    """Prompts rolled out."""
    unknown: int = 0
    """Rollouts without a verdict."""
    judging: dict[str, float] = Field(default_factory=dict)
    """What their verdicts have cost, such as judge_prompt_tokens; empty where they cost nothing."""
    kept: int = 0
    """Prompts that have their evidence from an earlier posterior."""
    restored: int = 0
    """Prompts whose evidence came back from an earlier posterior's archive."""
    new: int = 0
    """Prompts of which an earlier posterior knew nothing."""
    archived: int = 0
    """Prompts whose evidence went into the archive."""
    prediction: str = ""
    """How pass rates of unseen prompts are predicted, in a sentence; empty where they are not."""


class EpochFigures(StateFigures):
    """Of an epoch: its checkpoint, and training so far."""

    stage = "train_epoch"

    pruned: bool = False
    """Were its weights deleted by `cures runs prune`?"""
    kept_rollouts: dict[str, int] = Field(default_factory=dict)
    """Of the rollouts that were to be kept: kept, withheld, cut, left_out (`cures_core.kept_rollouts.keeper`); empty in
    records of earlier versions."""


class SuiteFigures(_AsSaid):
    """Mean accuracy on a suite with its interval."""

    value: float
    low: float
    high: float
    n: int = 0
    """Items."""
    k: int = 0
    """Sampled completions an item."""


class EvaluateFigures(Figures):
    """Of the scores of a checkpoint."""

    stage = "evaluate_checkpoint"

    rollouts: int
    """Completions, greedy ones included."""
    tokens: int
    """Tokens of those completions."""
    unknown: int = 0
    """Completions without a verdict."""
    judging: dict[str, float] = Field(default_factory=dict)
    """As of a prior."""
    scores: dict[str, SuiteFigures] = Field(default_factory=dict)
    """avg@k by suite."""
    reused: tuple[str, ...] = ()
    """Suites whose completions an earlier evaluation had made."""


class SnapshotFigures(Figures):
    """Of a posterior under version control."""

    stage = "snapshot_posterior"

    tag: str
    """git tag, `posterior/<run>/<epoch>`."""
    commit: str
    """git commit of the pointer file."""
    md5: str
    """MD5 of the Parquet file: its name at the DVC remote."""
    size: int
    """Bytes of the Parquet file."""
    remote: str
    """DVC remote."""
    path: str
    """Path of the pointer file in the repository."""


class PromoteFigures(Figures):
    """Of the gate's decision."""

    stage = "promote"

    promoted: bool
    """Has the model's pointer moved?"""
    reasons: tuple[str, ...]
    """Why, or why not."""
    model: str
    """Name of the model."""
    incumbent: str
    """The run whose checkpoint it was compared with, or "the base policy"."""


class ReportFigures(Figures):
    """Of the report's page."""

    stage = "report"

    steps: int
    """Training steps shown."""
    bytes: int
    """Size of the page."""
