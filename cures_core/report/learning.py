"""Pictures of what the steps of a run say: reward, loss, entropy and the like, each against the rollouts paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cures_core.report.charts import Series, line_chart, smooth
from cures_core.report.metrics import metric_of

Step = Mapping[str, float | str]
"""A row of metrics.jsonl."""
_POINTS = 30
"""A running mean is over so many equal parts of the run."""


@dataclass(frozen=True)
class StepChart:
    """What is drawn in one picture, and what a reader should know of it."""

    title: str
    caption: str
    metrics: tuple[str, ...]
    """Names in metrics.jsonl; those that no step has are left out."""
    y_title: str
    y_range: tuple[float, float] | None = None
    also: tuple[str, ...] = ()
    """Columns of the table beside it that are not drawn."""

    def shown(self, steps: Sequence[Step]) -> list[str]:
        """The metrics that some step has."""
        return [name for name in self.metrics if any(name in row for row in steps)]

    def draw(self, steps: Sequence[Step]) -> str:
        """SVG; empty where there is nothing to draw. A figure that a step does not have, as a mean over nothing, is no
        point of its line."""
        window, series = max(1, len(steps) // _POINTS), []
        for name in self.shown(steps):
            rows = [row for row in steps if name in row]
            x = [float(row.get("rollouts_total", 0.0)) for row in rows]
            series.append(Series(metric_of(name).title, x, smooth([float(row[name]) for row in rows], window)))
        return line_chart(self.title, series, "training rollouts", self.y_title, self.y_range)


REWARD = StepChart(
    "Reward during training",
    "Reward on the prompts that were drawn, running mean. It is no measure of progress by itself: the curriculum draws "
    "harder prompts as the policy improves.",
    ("reward_mean",),
    "share correct",
    (0.0, 1.0),
)
WEIGHTED_REWARD = replace(REWARD, metrics=("reward_mean", "correct_share"), y_title="reward", y_range=None)
"""Where a right answer is not simply worth 1."""
UPDATES = (
    StepChart("Loss", "Loss of the update, running mean.", ("loss",), "loss", also=("learning_rate", "tokens_trained")),
    StepChart(
        "Entropy",
        "How undecided the policy is about the next token, over all rollouts of a step (estimated from the tokens "
        "drawn) and over those in the update. Near 0 it tries nothing else any more and has little left to learn from.",
        ("sampled_entropy", "entropy"),
        "nats a token",
    ),
    StepChart(
        "Gradient norm",
        "Norm of the gradient before clipping. Spikes are steps that moved the policy far.",
        ("grad_norm",),
        "norm",
    ),
    StepChart("KL divergence", "How far the policy has moved from the base policy.", ("kl",), "nats a token"),
    StepChart("Length", "Mean length of the completions.", ("completion_tokens_mean",), "tokens"),
    StepChart(
        "Truncation",
        "Share of the completions that ran into the token limit: their answers are lost.",
        ("truncated_share",),
        "share",
        (0.0, 1.0),
    ),
)
CURRICULUM = (
    StepChart(
        "Thinking and answers",
        "Tokens of a completion: what is thought, and what is answered.",
        ("thinking_tokens_mean", "answer_tokens_mean"),
        "tokens of a completion",
        also=("completion_tokens_mean",),
    ),
    StepChart(
        "Prompts by outcome",
        "Share of the drawn prompts that moved the policy, and of those whose rollouts were right and wrong, all "
        "right, all wrong.",
        ("taught_share", "informative_share", "all_right_share", "all_wrong_share"),
        "share of prompts",
        (0.0, 1.0),
    ),
    StepChart(
        "Effective sample size of the prompt distribution",
        "How many prompts the distribution is spread over: small means focused.",
        ("effective_sample_size",),
        "prompts",
        also=("weight_ratio",),
    ),
    StepChart(
        "Error of the predicted pass rates",
        "Mean distance between predicted and observed pass rate of the drawn prompts, which are chosen for being "
        "uncertain. Of one or few rollouts a prompt it cannot come near 0.",
        ("calibration_mae",),
        "error",
        (0.0, 0.6),
        also=("calibration_pearson", "calibration_brier"),
    ),
)
