"""Scores as lm-evaluation-harness writes them."""

from __future__ import annotations

import json
import math

import pytest

from cures_core.config.evaluation import EvaluatedSuite, EvaluationConfig
from cures_core.evaluation.items import ItemResult, score
from cures_core.evaluation.lm_eval import lm_eval_results
from cures_core.evaluation.paired import Evaluated

CFG = EvaluationConfig(resamples=200)


def evaluated(correct: list[int], k: int, greedy: bool) -> Evaluated:
    items = [
        ItemResult(f"{i:03d}", "", "", c, 0, k, 0, 5, int(c > 0) if greedy else None, float(c == k))
        for i, c in enumerate(correct)
    ]
    suite = EvaluatedSuite(name="exam", path="x", samples=k, greedy=greedy)
    return Evaluated(score(items, suite, CFG, {"temperature": 0.7, "seed": 3, "suite_digest": "abc"}), items)


def test_figures_and_standard_errors_are_those_of_the_items() -> None:
    one = evaluated([0, 2, 1, 2], 2, greedy=True)
    made = json.loads(json.dumps(lm_eval_results({"exam": one}, "run-1 epoch 2", 5.0, 2.5, {"torch": "x"})))
    row = made["results"]["exam"]
    assert row["exact_match,none"] == one.score.avg.value == 0.625
    # values 0, 1, 1/2, 1: standard deviation sqrt(0.6875 / 3) over sqrt(4)
    assert row["exact_match_stderr,none"] == pytest.approx(math.sqrt(0.6875 / 3) / 2)
    assert (row["pass@2,none"], row["maj@2,none"], row["greedy,none"]) == (0.75, 0.5, 0.75)
    assert row["pass@2,none"] == one.score.pass_at["2"].value
    assert made["n-samples"]["exam"] == {"original": 4, "effective": 4}
    assert made["higher_is_better"]["exam"] == {"exact_match": True, "pass@2": True, "maj@2": True, "greedy": True}
    assert made["configs"]["exam"]["repeats"] == 2
    assert made["configs"]["exam"]["generation_kwargs"]["temperature"] == 0.7
    assert (made["config"]["random_seed"], made["date"], made["model_name"]) == (3, 5.0, "run-1 epoch 2")
    assert " " not in made["model_name_sanitized"]


def test_one_item_has_no_standard_error_and_one_sample_no_vote() -> None:
    row = lm_eval_results({"exam": evaluated([1], 1, greedy=False)}, "m", 0.0, 0.0, {})["results"]["exam"]
    assert row == {"alias": "exam", "exact_match,none": 1.0, "exact_match_stderr,none": "N/A"}
