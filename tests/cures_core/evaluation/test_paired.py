"""The paired comparison: joined by id, exact where nothing changed, refused where the two do not compare."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cures_core.config.evaluation import EvaluatedSuite, EvaluationConfig
from cures_core.errors import ConfigError
from cures_core.evaluation.items import ItemResult, score
from cures_core.evaluation.paired import Evaluated, compare

CFG = EvaluationConfig(resamples=500)
K = 4


def items(correct: list[int], k: int = K, names: list[str] | None = None) -> list[ItemResult]:
    names = names or [f"{i:04d}" for i in range(len(correct))]
    return [ItemResult(name, "", "", c, 0, k, 0, k, None) for name, c in zip(names, correct, strict=True)]


def evaluated(correct: dict[str, int], k: int = K, suite: str = "exam", **settings: Any) -> Evaluated:
    rows = items([*correct.values()], k, [*correct])
    cfg = EvaluatedSuite(name=suite, path="exam.jsonl", samples=k)
    return Evaluated(score(rows, cfg, CFG, {"engine": "hf", **settings}), rows)


def test_items_are_joined_by_id_not_by_row():
    candidate = evaluated({"a": 4, "b": 1, "c": 0})
    pair = compare(candidate, evaluated({"c": 0, "b": 3, "a": 1}), CFG)
    assert (pair.n, pair.k, pair.better, pair.worse) == (3, K, 1, 1)
    assert pair.gain == pytest.approx((3 - 2) / (3 * K))
    assert pair.low <= pair.gain <= pair.high
    assert pair.p_value == 1.0


def test_equal_policies_gain_exactly_nothing_and_never_pass():
    counts = {f"{i:03d}": i % 4 for i in range(300)}
    pair = compare(evaluated(counts, k=3), evaluated(counts, k=3), CFG)
    assert (pair.gain, pair.better, pair.worse, pair.p_value) == (0.0, 0, 0, 1.0)
    assert (pair.low, pair.high) == (0.0, 0.0)


def test_two_items_that_both_gain_prove_nothing():
    assert compare(evaluated({"a": 4, "b": 4}), evaluated({"a": 0, "b": 0}), CFG).low <= 0
    many = [evaluated({f"{i}": c for i in range(9)}) for c in (4, 0)]
    assert compare(*many, CFG).low > 0


def test_the_interval_narrows_where_both_policies_share_the_hard_items():
    hard = {f"{i:03d}": 0 for i in range(100)} | {f"{i:03d}": 4 for i in range(100, 200)}
    shifted = {name: min(4, c + int(name) % 2) for name, c in hard.items()}
    candidate, incumbent = evaluated(shifted), evaluated(hard)
    pair = compare(candidate, incumbent, CFG)
    alone = candidate.score.avg
    assert pair.high - pair.low < (alone.high - alone.low) / 2
    assert pair.low > 0


@pytest.mark.parametrize(("n", "k"), [(20, 8), (300, 1)])
def test_the_interval_holds_a_true_gain_as_often_as_it_says(n, k):
    rng, held = np.random.default_rng([n, k]), 0
    population = rng.beta(0.3, 0.3, 1_000_000)
    truth = float(np.mean(np.minimum(population + 0.1, 1) - population))
    alike = evaluated({"a": 0}, k).score
    for _ in range(800):
        rates = rng.beta(0.3, 0.3, n)
        candidate, incumbent = rng.binomial(k, [np.minimum(rates + 0.1, 1), rates]).tolist()
        pair = compare(Evaluated(alike, items(candidate, k)), Evaluated(alike, items(incumbent, k)), EvaluationConfig())
        held += pair.low <= truth <= pair.high
    assert 0.93 <= held / 800 <= 0.97


def test_the_sign_test_is_exact():
    base = {f"{i}": 2 for i in range(10)}
    pair = compare(evaluated(base | {str(i): 3 for i in range(6)}), evaluated(base), CFG)
    assert (pair.better, pair.worse) == (6, 0)
    assert pair.p_value == pytest.approx(2 / 2**6)


def test_swapping_the_policies_turns_the_gain_round():
    a, b = evaluated({f"{i:02d}": i % 5 for i in range(90)}), evaluated({f"{i:02d}": i % 3 for i in range(90)})
    there, back = compare(a, b, CFG), compare(b, a, CFG)
    assert (there.gain, there.better, there.p_value) == (-back.gain, back.worse, back.p_value)
    assert there.low == pytest.approx(-back.high, abs=0.03)


def test_other_settings_are_refused_by_name():
    counts = {"a": 1, "b": 2}
    with pytest.raises(ConfigError, match=r"settings \(temperature: candidate 1.0, incumbent 0.6\)"):
        compare(evaluated(counts, temperature=1.0), evaluated(counts, temperature=0.6), CFG)
    with pytest.raises(ConfigError, match=r"torch: candidate '2\.13', incumbent 'absent'"):
        compare(evaluated(counts, torch="2.13"), evaluated(counts), CFG)
    with pytest.raises(ConfigError, match="k: candidate 4, incumbent 8"):
        compare(evaluated(counts), evaluated(counts, k=8), CFG)
    with pytest.raises(ConfigError, match="suite: candidate 'exam', incumbent 'quiz'"):
        compare(evaluated(counts), evaluated(counts, suite="quiz"), CFG)


@pytest.mark.parametrize(
    "judges",
    [
        {"reward.type": "numeric"},
        {"reward.type": "weighted", "reward.answer.type": "exact", "reward.format.0.type": "box"},
    ],
)
def test_what_math_verify_does_not_judge_compares_across_its_versions(judges):
    """Those that earlier versions have scored too: they wrote its version whoever judged."""
    counts = {"a": 1, "b": 2}
    old, other = (evaluated(counts, **judges, **{"math-verify": version}) for version in ("0.8.0", "0.9.0"))
    for theirs in (other, evaluated(counts, **judges)):
        assert compare(old, theirs, CFG).gain == 0


@pytest.mark.parametrize("place", ["reward", "reward.answer", "reward.default", "reward.by_source.1.verifier.answer"])
def test_what_it_judges_does_not(place):
    judges = {"reward.type": "by-source", "reward.default.type": "numeric", f"{place}.type": "math"}
    both = [evaluated({"a": 1}, **judges, **{"math-verify": version}) for version in ("0.8.0", "0.9.0")]
    with pytest.raises(ConfigError, match=r"math-verify: candidate '0\.8\.0', incumbent '0\.9\.0'"):
        compare(*both, CFG)


def test_other_items_are_refused_by_name():
    with pytest.raises(ConfigError, match="1 items were seen by one policy only, for example c by the incumbent"):
        compare(evaluated({"a": 1, "b": 2}), evaluated({"a": 1, "b": 2, "c": 0}), CFG)
    with pytest.raises(ConfigError, match=r"2 items .* for example a by the candidate"):
        compare(evaluated({"a": 1, "b": 2}), evaluated({"c": 1, "b": 2}), CFG)
    good = evaluated({"a": 1})
    with pytest.raises(ConfigError, match="no items, or an item twice"):
        compare(Evaluated(good.score, [*good.items, *good.items]), good, CFG)
