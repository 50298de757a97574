"""The gate: chance alone passes it rarely (A/A), a real gain passes it often, and its reasons say why."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cures_core.config.evaluation import EvaluationConfig, PromotionConfig
from cures_core.errors import ConfigError
from cures_core.evaluation.items import ItemResult
from cures_core.evaluation.paired import Evaluated, Paired, compare
from cures_core.evaluation.promotion import decide
from cures_core.evaluation.scores import Estimate, SuiteScore

Floats = npt.NDArray[np.float64]

GATE = PromotionConfig(model="small", suites=("exam",))
CFG = EvaluationConfig(resamples=1000)


def evaluated(correct: list[int], k: int) -> Evaluated:
    """Only the items matter here, not their score."""
    nothing = Estimate(value=0, low=0, high=0)
    shares = {"unknown_share": 0.0, "truncated_share": 0.0, "tokens_mean": 0.0}
    score = SuiteScore(suite="exam", n=len(correct), k=k, avg=nothing, pass_at={}, settings={}, **shares)
    return Evaluated(score, [ItemResult(f"{i:04d}", "", "", c, 0, k, 0, 0, None) for i, c in enumerate(correct)])


def promoted_share(n: int, k: int, comparisons: int, lift: float = 0.0, wobble: float = 0.0) -> float:
    """Share of comparisons that promote; the incumbent's success rates are U-shaped, the candidate's higher by `lift`.

    `wobble` moves single items up or down without moving their mean.
    """
    rng = np.random.default_rng([n, k, round(1000 * (1 + lift)), round(1000 * wobble)])
    promoted = 0
    for _ in range(comparisons):
        rates = rng.beta(0.3, 0.3, n)
        room = np.minimum(np.minimum(rates, 1 - rates), wobble)
        moved = np.clip(rates + lift + room * rng.choice([-1, 1], n), 0, 1)
        candidate, incumbent = rng.binomial(k, moved).tolist(), rng.binomial(k, rates).tolist()
        pair = compare(evaluated(candidate, k), evaluated(incumbent, k), CFG)
        promoted += decide(GATE, {"exam": pair}).promoted
    return promoted / comparisons


@pytest.mark.parametrize(("n", "k"), [(2, 8), (30, 16), (200, 4)])
def test_a_policy_is_seldom_promoted_over_itself(n, k):
    assert promoted_share(n, k, 1000) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 5, 10, 30, 200, 500])
@pytest.mark.parametrize("k", [1, 4, 8])
@pytest.mark.parametrize("wobble", [0.0, 0.3])
def test_a_policy_is_seldom_promoted_over_its_equal(n, k, wobble):
    assert promoted_share(n, k, 1000, wobble=wobble) <= 0.05


def test_a_better_policy_is_mostly_promoted_and_more_samples_help():
    power = {k: promoted_share(300, k, 150, lift=0.04) for k in (1, 8)}
    assert power[8] >= 0.9
    assert power[1] < power[8]


def test_small_suites_gain_power_from_samples():
    assert promoted_share(30, 16, 100, lift=0.06) >= 0.5


def test_a_worse_policy_is_never_promoted():
    assert promoted_share(300, 4, 100, lift=-0.05) == 0


def pair(suite: str = "exam", **changes: Any) -> Paired:
    figures = {"gain": 0.03, "low": 0.01, "high": 0.05, "confidence": 0.975, "better": 40, "worse": 10}
    return Paired(suite=suite, n=200, k=4, p_value=2.4e-5, **{**figures, **changes})


def test_every_named_suite_must_gain_and_every_suite_has_its_reason():
    cfg = PromotionConfig(model="small", suites=("exam", "quiz"))
    decision = decide(cfg, {"quiz": pair("quiz"), "exam": pair(low=-0.002), "other": pair("other", low=-1.0)})
    assert not decision.promoted
    assert decision.reasons == (
        "exam: gain +0.0300, 97.5 % interval -0.0020 to +0.0500; its lower end is not above the smallest effect that "
        "counts, 0 (200 items x 4 samples, 40 better, 10 worse, sign test p = 2.4e-05).",
        "quiz: gain +0.0300, 97.5 % interval +0.0100 to +0.0500; its lower end is above the smallest effect that "
        "counts, 0 (200 items x 4 samples, 40 better, 10 worse, sign test p = 2.4e-05).",
    )
    assert decide(cfg, {"quiz": pair("quiz"), "exam": pair()}).promoted


def test_the_lower_end_must_be_above_the_smallest_effect():
    assert not decide(GATE, {"exam": pair(low=0.0)}).promoted
    strict = GATE.model_copy(update={"min_effect": 0.01})
    assert not decide(strict, {"exam": pair(low=0.01)}).promoted
    assert decide(strict, {"exam": pair(low=0.011)}).promoted


def test_a_suite_that_was_not_compared_is_an_error():
    with pytest.raises(ConfigError, match=r"promotion\.suites names exam, but only \['quiz'\] were compared"):
        decide(GATE, {"quiz": pair("quiz")})


def test_a_suite_that_must_not_suffer_may_lose_less_than_its_margin():
    cfg = GATE.model_copy(update={"margins": {"guard": 0.02}})
    assert decide(cfg, {"exam": pair(), "guard": pair("guard", gain=-0.01, low=-0.019)}).promoted
    refused = decide(cfg, {"exam": pair(), "guard": pair("guard", gain=-0.01, low=-0.02)})
    assert not refused.promoted
    assert "is not above the largest loss that is tolerated, -0.02" in refused.reasons[1]
    with pytest.raises(ConfigError, match=r"promotion\.margins names guard"):
        decide(cfg, {"exam": pair()})


def test_scores_without_verdicts_promote_nothing():
    cfg = GATE.model_copy(update={"max_unknown_share": 0.05})
    refused = decide(cfg, {"exam": pair(unknown_share=0.06)})
    assert not refused.promoted
    assert refused.reasons[1:] == ("exam: 6 % of one policy's completions got no verdict, the limit is 5 %.",)
    assert decide(cfg, {"exam": pair(unknown_share=0.05)}).promoted
    assert decide(GATE, {"exam": pair(unknown_share=0.06)}).promoted


def test_a_suite_without_any_verdict_promotes_nothing_whatever_the_limit():
    cfg = GATE.model_copy(update={"margins": {"guard": 0.02}})
    broken = pair("guard", gain=0.0, low=0.0, high=0.0, unknown_share=1.0)
    refused = decide(cfg, {"exam": pair(), "guard": broken})
    assert not refused.promoted
    assert refused.reasons[2:] == ("guard: no completion of one of the policies got a verdict.",)


def test_a_gain_over_scores_without_verdicts_is_none():
    able, broken = evaluated([2] * 40, 2), evaluated([0] * 40, 2)
    blind = Evaluated(broken.score.model_copy(update={"unknown_share": 1.0}), broken.items)
    assert decide(GATE, {"exam": compare(able, broken, CFG)}).promoted
    for one, other in ((able, blind), (blind, broken), (blind, blind)):
        assert not decide(GATE, {"exam": compare(one, other, CFG)}).promoted


def test_a_suite_that_was_trained_on_promotes_nothing():
    refused = decide(GATE, {"exam": pair()}, trained_on={"exam": 0.03})
    assert not refused.promoted
    assert refused.reasons[1] == "exam: 3 % of its items are in the training set, the limit is 0 %."
    lenient = GATE.model_copy(update={"max_contaminated_share": 0.03})
    assert decide(lenient, {"exam": pair()}, trained_on={"exam": 0.03}).promoted
    assert decide(GATE, {"exam": pair()}, trained_on={"other": 1.0}).promoted


@pytest.mark.parametrize("bad", [{"margins": {"exam": 0.1}}, {"margins": {"guard": -0.1}}, {"max_unknown_share": 2}])
def test_a_gate_that_contradicts_itself_is_refused(bad):
    with pytest.raises(ValueError, match=r"margin|max_unknown_share"):
        PromotionConfig.model_validate({"model": "small", "suites": ["exam"], **bad})
