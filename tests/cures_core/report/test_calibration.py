"""Predictions against outcomes, epoch by epoch, and the lag of a policy that improves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.curriculum.calibration import Calibration
from cures_core.report.calibration import Bin, Calibrated, by_epoch, moved, plot, plots

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


def test_the_lag_of_a_policy_that_improves_is_told_from_wrong_predictions() -> None:
    rates = [(i + 0.5) / 10 for i in range(10)]
    lagging = Calibrated(
        label="epoch 1", bins=tuple(Bin(predicted=p, observed=moved(p, 1.2), rollouts=100) for p in rates)
    )
    assert lagging.odds == pytest.approx(1.2, abs=1e-6)
    assert lagging.error > 0.15
    assert lagging.error_without_lag < 1e-6
    flat = Calibrated(label="epoch 1", bins=tuple(Bin(predicted=p, observed=0.5, rollouts=100) for p in rates))
    assert flat.odds == pytest.approx(0.0, abs=1e-6)
    assert flat.error_without_lag == pytest.approx(flat.error) == pytest.approx(0.25)


@pytest.mark.parametrize("observed", [0.0, 1.0])
def test_an_epoch_in_which_all_fail_or_succeed_can_be_drawn(observed: float) -> None:
    epoch = Calibrated(label="epoch 1", bins=(Bin(predicted=0.5, observed=observed, rollouts=4),))
    assert epoch.error_without_lag < 0.01
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
