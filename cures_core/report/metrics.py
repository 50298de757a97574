"""What the metrics of a step are called where people read them, in which unit, and how one is written."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """A column of metrics.jsonl."""

    title: str
    unit: str = ""
    """As after a value; empty for a plain number."""
    kind: Literal["share", "count", "number"] = "number"


METRICS = {
    "step": Metric("step", "", "count"),
    "rollouts_total": Metric("rollouts so far", "", "count"),
    "tokens_total": Metric("tokens so far", "", "count"),
    "reward_mean": Metric("reward"),
    "correct_share": Metric("correct", "%", "share"),
    "loss": Metric("loss"),
    "entropy": Metric("entropy", "nats a token"),
    "sampled_entropy": Metric("entropy of all rollouts", "nats a token"),
    "grad_norm": Metric("gradient norm"),
    "kl": Metric("KL from the base policy", "nats a token"),
    "completion_tokens_mean": Metric("length", "tokens"),
    "truncated_share": Metric("cut at the token limit", "%", "share"),
    "taught_share": Metric("moved the policy", "%", "share"),
    "informative_share": Metric("right and wrong", "%", "share"),
    "all_right_share": Metric("all right", "%", "share"),
    "all_wrong_share": Metric("all wrong", "%", "share"),
    "unknown_share": Metric("no verdict", "%", "share"),
    "effective_sample_size": Metric("effective sample size", "prompts"),
    "weight_ratio": Metric("largest over smallest weight"),
    "calibration_mae": Metric("mean absolute error"),
    "calibration_pearson": Metric("Pearson r"),
    "calibration_brier": Metric("Brier score"),
    "learning_rate": Metric("learning rate"),
    "tokens_trained": Metric("tokens in the loss", "", "count"),
    "rollouts_trained": Metric("rollouts in the loss", "", "count"),
    "prompts_taught": Metric("prompts that moved the policy", "", "count"),
    "groups": Metric("prompts drawn", "", "count"),
    "step_rollouts": Metric("rollouts of the step", "", "count"),
    "clipped_share": Metric("ratio clipped", "% of tokens", "share"),
    "importance_truncated_share": Metric("importance weight bounded", "% of tokens", "share"),
    "logprob_gap_mean": Metric("engine against trainer, mean", "nats a token"),
    "logprob_gap_max": Metric("engine against trainer, largest", "nats a token"),
    "judge_prompt_tokens": Metric("read by the judge", "tokens", "count"),
    "judge_completion_tokens": Metric("written by the judge", "tokens", "count"),
    "packing": Metric("rows filled", "%", "share"),
    "micro_batch_tokens": Metric("micro-batch", "tokens", "count"),
    "seconds": Metric("time of a step", "s"),
}


def metric_of(name: str) -> Metric:
    """By its name in metrics.jsonl; one of a strategy of the user's own is called by that name."""
    return METRICS.get(name, Metric(name.replace("_", " ")))


def heading(name: str) -> str:
    """Title with unit."""
    metric = metric_of(name)
    return f"{metric.title}, {metric.unit}" if metric.unit else metric.title


def written(name: str, value: float | str) -> str:
    """A value of that metric, in the unit of its heading."""
    if isinstance(value, str):
        return value
    match metric_of(name).kind:
        case "share":
            return f"{100 * value:.1f}"
        case "count":
            return f"{value:,.0f}"
        case _:
            return plain(value)


def plain(value: float) -> str:
    """A number with as many digits as say something: counts have none after the point, and 0 is 0."""
    if float(value).is_integer():
        return f"{value:,.0f}"
    size = abs(value)
    return f"{value:.2g}" if size < 0.1 else f"{value:,.3f}" if size < 10 else f"{value:,.1f}"
