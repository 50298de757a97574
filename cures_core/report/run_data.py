"""What a report shows. Everything may be missing but the run's name: the page then says so."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from cures_core.config.base import Strict
from cures_core.evaluation.scores import Gain, SuiteScore
from cures_core.report.calibration import Bin, Calibrated


class Stage(Strict):
    """A stage of the run."""

    name: str
    label: str = ""
    """Tells stages of one name apart, such as the epoch."""
    key: str = ""
    seconds: float = 0.0
    """Wall time of the work, also where the stage was cached."""


class Scored(Strict):
    """Scores of one checkpoint."""

    label: str
    """As in "before training" and "after epoch 3"."""
    rollouts: int = 0
    """Training rollouts up to this checkpoint."""
    tokens: int = 0
    """Tokens of those rollouts."""
    seconds: float = 0.0
    """Wall time of the training epochs up to this checkpoint."""
    updates: int = 0
    """Updates of the policy up to this checkpoint."""
    suites: tuple[SuiteScore, ...] = ()


class Belief(Strict):
    """A posterior in short."""

    label: str
    """As in "prior" and "epoch 3"."""
    histogram: tuple[int, ...]
    """Prompts by expected pass rate, in equal bins over 0..1."""
    prompts: int
    evidence: float
    """Rollouts remembered (faded)."""
    dead_share: float
    """Share of prompts taken for unsolvable."""
    frontier_share: float
    """Share of prompts with an expected pass rate in 0.1..0.9."""


class PromptRow(Strict):
    """A prompt that the report names."""

    id: str
    problem: str
    answer: str
    before: float
    """Expected pass rate under the prior."""
    after: float
    """Expected pass rate at the end."""
    successes: float
    """Correct rollouts that are remembered; old ones fade."""
    failures: float
    """Wrong rollouts that are remembered."""
    evidence: str = ""
    """What makes a suspicious prompt suspicious."""


class Suspects(Strict):
    """Prompts, or items of one suite, that are suspicious for one reason."""

    suite: str = ""
    """Empty for prompts of training."""
    reason: str
    """As in "answer disputed"."""
    meaning: str
    """What it is a sign of, in a sentence."""
    total: int
    """How many prompts look like that."""
    rows: tuple[PromptRow, ...] = ()
    """Those with the most evidence."""


class Allocation(Strict):
    """Where rollouts went, in equal bins of the expected pass rate over 0..1."""

    prompts: tuple[float, ...]
    """Share of the prompts in each bin."""
    rollouts: tuple[float, ...]
    """Share of the remembered rollouts in each bin."""


class Named(Strict):
    """Prompts worth a look."""

    moved: tuple[PromptRow, ...] = ()
    """Those whose expected pass rate changed most."""
    hardest: tuple[PromptRow, ...] = ()
    """Lowest expected pass rate of those that were ever solved."""
    suspicious: tuple[Suspects, ...] = ()
    """By reason; reasons without a prompt are left out."""
    allocation: Allocation | None = None


class Believed(Strict):
    """What a posterior says of one prompt."""

    label: str
    """As in "prior" and "epoch 3"."""
    step: int
    mean: float
    """Expected pass rate."""
    low: float
    """The pass rate lies between this"""
    high: float
    """and this with 90 %."""


class Written(Strict):
    """A kept rollout, cut to what a page can hold."""

    step: int
    outcome: str
    reason: str = ""
    reward: float | None
    advantage: float | None
    tokens: int
    truncated: bool
    """Did it run into the token limit?"""
    completion: str


class Story(Strict):
    """A prompt over time: what was believed of it, and what the policy wrote."""

    id: str
    problem: str
    answer: str
    beliefs: tuple[Believed, ...]
    """Prior first."""
    kept: int
    """Rollouts of it that were kept."""
    rollouts: tuple[Written, ...]
    """Some of them, the first and the last among them, in order of their steps."""


class Example(Strict):
    """One item of a suite with a completion of the first and of the last evaluation."""

    suite: str
    problem: str
    gold: str
    completion: str
    """Of the last evaluation."""
    outcome: str
    """Its verdict: correct, wrong or unknown."""
    before: str = ""
    """Completion of the first evaluation; empty where there is only one, or it was not kept."""
    before_outcome: str = ""
    """Its verdict; empty as well."""


class Validation(Strict):
    """What validation made of the prompt set."""

    rows_read: int
    kept: int
    rejected: int
    dropped: int
    reasons: dict[str, int] = Field(default_factory=dict)
    suites: dict[str, int] = Field(default_factory=dict)
    """Items of each evaluation suite."""
    read_as: str = ""
    """The layout of the file, and where problems and answers were taken from."""


class SourceRow(Strict):
    """What became of the prompts of one source."""

    source: str
    verifier: str
    """What judges them; several where rows name one themselves."""
    prompts: int
    golds_rejected: int
    """Rows whose gold answer that verifier could not use."""
    drawn: int = 0
    """Prompts that training has rolled out."""
    rollouts: int = 0
    """Rollouts of training."""
    share: float | None = None
    """Of all rollouts of training; None before there are any."""
    correct: float | None = None
    """Of the known rollouts of training; None where there are none."""
    before: float | None = None
    """Mean expected pass rate under the prior."""
    after: float | None = None
    """The same under the last posterior."""


class SnapshotTag(Strict):
    """A posterior under version control."""

    tag: str
    md5: str


class Verdict(Strict):
    """The promotion gate's answer."""

    promoted: bool
    reasons: tuple[str, ...] = ()


class Spent(Strict):
    """Account of one kind of work, all of it paid."""

    rollouts: int
    """Completions."""
    tokens: int
    """Their tokens, prompts not counted."""
    seconds: float = 0.0
    """Wall time."""
    updates: int = 0
    """Steps that changed the policy."""
    judge_tokens: int = 0
    """Tokens that judges have read and written."""


class Wasted(Strict):
    """Of the rollouts of training, those that a reader asks about. None where a run's version did not count them."""

    first_tries: int | None = None
    """With screening: the single first rollouts, by which solved prompts are told from the others."""
    unused: int | None = None
    """Rollouts that entered no update: of prompts all right or all wrong, without a verdict, or not chosen."""
    unused_tokens: int | None = None
    """Their tokens."""


class ReportData(Strict):
    """Input of `render`."""

    run: str
    status: str = "unknown"
    """As in `cures runs list`."""
    trouble: str = ""
    """Why the run ended, where it failed, was stopped or died."""
    started_at: str = ""
    """UTC, ISO 8601."""
    seconds: float = 0.0
    """Sum over the stages' work."""
    config: dict[str, Any] = Field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    scores: tuple[Scored, ...] = ()
    """Oldest first."""
    gains: dict[str, Gain] = Field(default_factory=dict)
    """Of avg@k, by suite."""
    greedy_gains: dict[str, Gain] = Field(default_factory=dict)
    """Of greedy completions, by suite."""
    steps: tuple[dict[str, float | str], ...] = ()
    """Rows of metrics.jsonl, with `seconds` added."""
    warm_start: tuple[dict[str, float], ...] = ()
    """Rows of warm_start.jsonl: step, loss and what else is known; empty for a policy that was taken as it is."""
    posteriors: tuple[Belief, ...] = ()
    """Prior first."""
    reliability: tuple[Bin, ...] = ()
    """Predictions against outcomes, over the whole run."""
    calibration: tuple[Calibrated, ...] = ()
    """The same, epoch by epoch."""
    named: Named = Named()
    """Single prompts, and where rollouts went."""
    stories: tuple[Story, ...] = ()
    """Of prompts whose rollouts were kept, those that `named` names first."""
    suspicious_items: tuple[Suspects, ...] = ()
    """Of suites, by suite and reason."""
    examples: tuple[Example, ...] = ()
    validation: Validation | None = None
    sources: tuple[SourceRow, ...] = ()
    """Of the prompt set, the largest first; none where there is but one."""
    snapshots: tuple[SnapshotTag, ...] = ()
    decision: Verdict | None = None
    cost: dict[str, Spent] = Field(default_factory=dict)
    """warm_start where there was one, prior, train and eval."""
    wasted: Wasted = Wasted()
    """Of `train`."""
    lineage: tuple[tuple[str, str], ...] = ()
    """(parent, child) record ids."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of what computed the numbers, commit and Python among them."""
    machines: tuple[tuple[str, dict[str, str]], ...] = ()
    """(stages, what they were made on), each machine once: processor, device, threads or gpu, dtype."""
    notices: tuple[str, ...] = ()
    """What to know before believing the rest."""
