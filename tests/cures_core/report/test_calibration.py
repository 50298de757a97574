"""Predictions against outcomes, epoch by epoch, and the lag of a policy that improves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.config.curriculum import CuresConfig, ScreenAllocation
from cures_core.curriculum import Posterior, make_curriculum
from cures_core.curriculum.calibration import Calibration
from cures_core.prompts import PromptSet, make_prompt
from cures_core.report.calibration import Bin, Calibrated, by_epoch, plot, plots, recalibrated
from cures_core.terms import Outcome
from cures_core.testing.curriculum import answered

Rolled = list[tuple[float, int, int]]
"""(predicted, right, wrong) of groups."""
GROUPS: st.SearchStrategy[Rolled] = st.lists(
    st.tuples(st.floats(0, 1, width=32), st.integers(0, 5), st.integers(0, 5)), max_size=12
)


def counted(*epochs: Rolled) -> list[tuple[str, list[Bin]]]:
    """The totals that the records of epochs hold."""
    calibration, totals = Calibration(), []
    for k, groups in enumerate(epochs, 1):
        if groups:
            predicted, right, wrong = (np.array(column, dtype=np.float64) for column in zip(*groups, strict=True))
            calibration.add(predicted, right, wrong)
        totals.append((f"epoch {k}", [Bin.model_validate(row) for row in calibration.reliability()]))
    return totals


@given(GROUPS, GROUPS)
def test_an_epoch_has_what_it_added_to_the_totals(first: Rolled, second: Rolled) -> None:
    found = {epoch.label: epoch for epoch in by_epoch(counted(first, second))}
    for label, groups in (("epoch 1", first), ("epoch 2", second)):
        judged = sum(right + wrong for _, right, wrong in groups)
        assert (label in found) is (judged > 0)
        if judged:
            assert found[label].rollouts == pytest.approx(judged)
            assert found[label].observed == pytest.approx(sum(right for _, right, _ in groups) / judged)
            predicted = sum(p * (right + wrong) for p, right, wrong in groups) / judged
            assert found[label].predicted == pytest.approx(predicted, abs=1e-6)


RATES = [(i + 0.5) / 10 for i in range(10)]


def epoch_of(*bins: tuple[float, float, float]) -> Calibrated:
    return Calibrated(label="epoch 1", bins=tuple(Bin(predicted=p, observed=o, rollouts=n) for p, o, n in bins))


@given(st.floats(-2, 2), st.floats(0.5, 3))
def test_lag_and_caution_are_found_and_what_they_explain_is_no_error(intercept: float, slope: float) -> None:
    epoch = epoch_of(*((p, recalibrated(p, intercept, slope), 10_000) for p in RATES))
    assert epoch.recalibration == pytest.approx((intercept, slope), abs=0.02)
    assert epoch.remaining_error < 0.002


def test_predictions_that_say_nothing_stay_wrong() -> None:
    odd = epoch_of(*((p, 0.9 if i % 2 else 0.1, 1000) for i, p in enumerate(RATES)))
    assert odd.remaining_error > 0.3
    honest = epoch_of(*((p, p, 1000) for p in RATES))
    assert honest.recalibration == pytest.approx((0, 1), abs=1e-6)
    assert honest.error == pytest.approx(0, abs=1e-9)


def test_what_few_outcomes_leave_open_stays_honest() -> None:
    intercept, slope = epoch_of((0.5, 1.0, 1)).recalibration
    assert 0 < intercept < 5
    assert slope == pytest.approx(1)


@pytest.mark.parametrize("observed", [0.0, 1.0])
def test_an_epoch_in_which_all_fail_or_succeed_can_be_drawn(observed: float) -> None:
    epoch = epoch_of((0.5, observed, 4))
    assert epoch.remaining_error < 0.2 < epoch.error
    low, high = epoch.bins[0].interval
    assert low <= observed <= high
    assert high - low > 0.3
    assert "nan" not in plot(epoch)


def test_of_many_epochs_six_are_drawn_with_the_first_and_the_last() -> None:
    epochs = [
        Calibrated(label=f"epoch {k}", bins=(Bin(predicted=0.5, observed=0.5, rollouts=9),)) for k in range(1, 30)
    ]
    titles = [title for title, _ in plots(epochs)]
    assert len(titles) == 6
    assert (titles[0], titles[-1]) == ("Epoch 1", "Epoch 29")


def test_a_policy_that_stays_as_it_is_shows_caution_and_hardly_a_lag() -> None:
    rng = np.random.default_rng(0)
    pool = PromptSet.of([make_prompt(f"q{i}?", str(i), level=str(i % 5)) for i in range(800)])
    solved = rng.random(len(pool)) < np.array([1, 0.98, 0.95, 0.8, 0.4])[[int(p.level) for p in pool]]
    rates = dict(zip(pool.ids, np.where(solved, 0.985, 0.08), strict=True))
    cfg = CuresConfig(prompts_per_step=40, rollouts_per_step=64, allocation=ScreenAllocation())
    curriculum = make_curriculum(cfg, pool, Posterior.fresh(pool, cfg.posterior), 1)
    for _ in range(80):
        budget = curriculum.rollouts_per_step
        while curriculum.ready() is None:
            requests = curriculum.ask(budget)
            right = (rng.random(q.n) < rates[q.prompt.id] for q in requests)
            outcomes = [[Outcome.CORRECT if one else Outcome.WRONG for one in group] for group in right]
            curriculum.tell([answered(q, group) for q, group in zip(requests, outcomes, strict=True)])
            budget -= sum(q.n for q in requests)
    (epoch,) = by_epoch([("epoch 1", [Bin.model_validate(row) for row in curriculum.calibration.reliability()])])
    intercept, slope = epoch.recalibration
    assert abs(intercept) < 0.8  # of an improving one it is near 2, in the first epoch of the quickstart
    assert slope > 1.3
    assert epoch.remaining_error < 0.5 * epoch.error
