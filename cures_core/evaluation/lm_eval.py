"""Knows the result file of lm-evaluation-harness, so that what reads those files reads our scores."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cures_core.evaluation.paired import Evaluated
from cures_core.evaluation.pass_at import pass_at

FILTER = "none"


def lm_eval_results(
    evaluated: Mapping[str, Evaluated], model: str, date: float, seconds: float, versions: Mapping[str, str]
) -> dict[str, object]:
    """The `results_*.json` of one evaluation: a task for each suite.

    `exact_match` is avg@k, the mean over items as there; `pass@j`, `maj@k` and `greedy` stand beside it. Errors are
    those of a mean over items: standard deviation (n - 1) / sqrt(n), "N/A" for one item, as the harness writes it.
    `date` is in seconds since 1970, `seconds` the evaluation's wall time.
    """
    scores = {name: one.score for name, one in evaluated.items()}
    return {
        "results": {name: _task(name, one) for name, one in evaluated.items()},
        "group_subtasks": {name: [] for name in evaluated},
        "configs": {
            name: {
                "task": name,
                "output_type": "generate_until",
                "repeats": score.k,
                "num_fewshot": 0,
                "generation_kwargs": {
                    "do_sample": score.settings.get("temperature", 0) != 0,
                    "temperature": score.settings.get("temperature"),
                    "top_p": score.settings.get("rollout.top_p", score.settings.get("top_p")),
                    "max_gen_toks": score.settings.get("max_new_tokens"),
                },
                "metadata": {**score.settings, **score.made_with},
            }
            for name, score in scores.items()
        },
        "versions": {name: str(score.settings.get("suite_digest", ""))[:12] for name, score in scores.items()},
        "n-shot": dict.fromkeys(evaluated, 0),
        "higher_is_better": {name: dict.fromkeys(_values(one), True) for name, one in evaluated.items()},
        "n-samples": {name: {"original": score.n, "effective": score.n} for name, score in scores.items()},
        "config": {
            "model": "cures",
            "model_args": model,
            "random_seed": next((score.settings.get("seed") for score in scores.values()), None),
        },
        "git_hash": None,
        "date": date,
        "lm_eval_version": None,
        "cures_versions": dict(versions),
        "model_source": "cures",
        "model_name": model,
        "model_name_sanitized": "".join(c if c.isalnum() or c in "._-" else "__" for c in model),
        "total_evaluation_time_seconds": str(seconds),
    }


def _task(name: str, one: Evaluated) -> dict[str, object]:
    row: dict[str, Any] = {"alias": name}
    for metric, values in _values(one).items():
        row[f"{metric},{FILTER}"] = statistics.fmean(values)
        row[f"{metric}_stderr,{FILTER}"] = _stderr(values)
    return row


def _values(one: Evaluated) -> dict[str, Sequence[float]]:
    """What each item scores, by metric."""
    items, k = one.items, one.score.k
    correct = [item.correct for item in items]
    found: dict[str, Sequence[float]] = {"exact_match": [c / k for c in correct]}
    for j in map(int, one.score.pass_at):
        if j > 1:
            found[f"pass@{j}"] = pass_at(j, correct, k).tolist()
    votes = [item.majority for item in items if item.majority is not None]
    if one.score.majority is not None and len(votes) == len(items):
        found[f"maj@{k}"] = votes
    greedy = [float(item.greedy) for item in items if item.greedy is not None]
    if len(greedy) == len(items):
        found["greedy"] = greedy
    return found


def _stderr(values: Sequence[float]) -> float | str:
    return "N/A" if len(values) < 2 else statistics.stdev(values) / math.sqrt(len(values))
