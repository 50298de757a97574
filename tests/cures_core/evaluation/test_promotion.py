"""The gate: every condition must hold, and its reasons say why."""

from __future__ import annotations

from typing import Any

import pytest

from cures_core.config.evaluation import EvaluationConfig, PromotionConfig
from cures_core.errors import ConfigError
from cures_core.evaluation.items import ItemResult
from cures_core.evaluation.paired import Evaluated, Paired, compare
from cures_core.evaluation.promotion import decide
from cures_core.evaluation.scores import Estimate, SuiteScore

GATE = PromotionConfig(model="small", suites=("exam",))
CFG = EvaluationConfig(resamples=1000)


def evaluated(correct: list[int], k: int) -> Evaluated:
    """Only the items matter here, not their score."""
    nothing = Estimate(value=0, low=0, high=0)
    shares = {"unknown_share": 0.0, "truncated_share": 0.0, "tokens_mean": 0.0}
    score = SuiteScore(suite="exam", n=len(correct), k=k, avg=nothing, pass_at={}, settings={}, **shares)
    return Evaluated(score, [ItemResult(f"{i:04d}", "", "", c, 0, k, 0, 0, None) for i, c in enumerate(correct)])


def pair(suite: str = "exam", **changes: Any) -> Paired:
    figures = {"gain": 0.03, "low": 0.01, "high": 0.05, "confidence": 0.975, "better": 40, "worse": 10}
    return Paired(suite=suite, n=200, k=4, p_value=2.4e-5, **{**figures, **changes})


def test_every_named_suite_must_gain_and_every_suite_has_its_reason():
    cfg = PromotionConfig(model="small", suites=("exam", "quiz"))
    pairs = {"quiz": pair("quiz"), "exam": pair(low=-0.002), "other": pair("other", low=-1.0)}
    decision = decide(cfg, pairs, rival="version 3 of small (run a-1)")
    assert not decision.promoted
    assert decision.reasons == (
        "exam: gain +0.0300 over version 3 of small (run a-1), 97.5 % interval -0.0020 to +0.0500; its lower end is "
        "not above the smallest effect that counts, 0 (200 items x 4 samples, 40 better, 10 worse, sign test p = "
        "2.4e-05).",
        "quiz: gain +0.0300 over version 3 of small (run a-1), 97.5 % interval +0.0100 to +0.0500; its lower end is "
        "above the smallest effect that counts, 0 (200 items x 4 samples, 40 better, 10 worse, sign test p = "
        "2.4e-05).",
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
    accepted = decide(cfg, {"exam": pair(), "guard": pair("guard", gain=-0.01, low=-0.019)})
    assert accepted.promoted
    assert "is above the largest loss that is tolerated, -0.02" in accepted.reasons[1]
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
    some = GATE.model_copy(update={"max_contaminated_share": 0.25})
    refused = decide(some, {"exam": pair()}, trained_on={"exam": 0.75})
    assert refused.reasons[1] == "exam: 75 % of its items are in the training set, the limit is 25 %."
    lenient = GATE.model_copy(update={"max_contaminated_share": 0.03})
    assert decide(lenient, {"exam": pair()}, trained_on={"exam": 0.03}).promoted
    assert decide(GATE, {"exam": pair()}, trained_on={"other": 1.0}).promoted


@pytest.mark.parametrize("bad", [{"margins": {"exam": 0.1}}, {"margins": {"guard": -0.1}}, {"max_unknown_share": 2}])
def test_a_gate_that_contradicts_itself_is_refused(bad):
    with pytest.raises(ValueError, match=r"margin|max_unknown_share"):
        PromotionConfig.model_validate({"model": "small", "suites": ["exam"], **bad})
