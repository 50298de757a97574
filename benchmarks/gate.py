"""What the gate and the intervals are worth, by simulation: false promotions, power, and coverage. No policy is run.

An item's true pass rate is drawn from Beta(0.3, 0.3), which is U-shaped as those of real suites are; completions are
independent given it. Candidate and incumbent answer the same items.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cures_core.config.evaluation import EvaluationConfig, PromotionConfig
from cures_core.evaluation.intervals import bootstrap, wilson
from cures_core.evaluation.items import ItemResult
from cures_core.evaluation.paired import Evaluated, compare
from cures_core.evaluation.promotion import decide
from cures_core.evaluation.scores import Estimate, SuiteScore

_SHAPE = (0.3, 0.3)
_GATE = PromotionConfig(model="simulated", suites=("simulated",))
_NOTHING = Estimate(value=0, low=0, high=0)


def measure_gate(items: int, samples: int, comparisons: int, gains: list[float], seed: int) -> dict[str, Any]:
    """Share of `comparisons` that promote for each true gain (0 is the A/A test), and coverage of the 95 % interval."""
    rows = []
    for gain in (0.0, *gains):
        promoted, true_gain = promoted_share(items, samples, comparisons, gain, seed)
        rows.append({"asked_gain": gain, "true_gain": round(true_gain, 4), "promoted": promoted})
    return {
        "items": items,
        "samples": samples,
        "comparisons": comparisons,
        "seed": seed,
        "confidence": EvaluationConfig().confidence,
        "power": rows,
        "coverage": coverage(items, samples, comparisons, seed),
    }


def promoted_share(items: int, samples: int, comparisons: int, gain: float, seed: int) -> tuple[float, float]:
    """(share promoted, mean true gain). A rate that a gain would take past 1 stays there, so less may come of it."""
    rng = np.random.default_rng([seed, items, samples, round(10_000 * gain)])
    promoted, total = 0, 0.0
    for i in range(comparisons):
        rates = rng.beta(*_SHAPE, items)
        better = np.clip(rates + gain, 0.0, 1.0)
        total += float((better - rates).mean())
        cfg = EvaluationConfig(seed=i)
        pair = compare(
            _evaluated(rng.binomial(samples, better), samples), _evaluated(rng.binomial(samples, rates), samples), cfg
        )
        promoted += decide(_GATE, {"simulated": pair}).promoted
    return promoted / comparisons, total / comparisons


def coverage(items: int, samples: int, comparisons: int, seed: int) -> float:
    """Share of simulated suites whose avg@k interval holds the mean of the distribution that the items come from."""
    rng = np.random.default_rng([seed, items, samples, 1_000_003])
    cfg, mean, held = EvaluationConfig(), _SHAPE[0] / sum(_SHAPE), 0
    for i in range(comparisons):
        correct = rng.binomial(samples, rng.beta(*_SHAPE, items))
        if samples == 1:
            low, high = wilson(int(correct.sum()), items, cfg.confidence)
        else:
            low, high = bootstrap(correct, cfg.confidence, cfg.resamples, i, (0, samples))
        held += low <= mean * samples <= high
    return held / comparisons


def _evaluated(correct: Any, samples: int) -> Evaluated:
    """Only the items matter to a comparison, not their score."""
    score = SuiteScore(
        suite="simulated",
        n=len(correct),
        k=samples,
        avg=_NOTHING,
        pass_at={},
        unknown_share=0.0,
        truncated_share=0.0,
        tokens_mean=0.0,
        settings={},
    )
    items = [ItemResult(f"{i:06d}", "", "", int(c), 0, samples, 0, 0, None) for i, c in enumerate(correct)]
    return Evaluated(score, items)
