"""A long measurement says how far it is and how long the rest will take."""

from __future__ import annotations

import pytest

from cures_core.countdown import Countdown


def test_the_rest_is_estimated_from_what_was_done_and_not_from_what_was_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    time = iter([0.0, 60.0, 180.0, 180.0]).__next__
    countdown = Countdown("arms", 4, now=time)
    countdown.found()
    countdown.done("one: 0.5")
    countdown.done()
    assert capsys.readouterr().err.splitlines() == [
        "4 arms",
        "arms 2/4: one: 0.5, about 2:00 left",
        "arms 3/4, about 1:30 left",
    ]


def test_the_last_part_says_what_all_took(capsys: pytest.CaptureFixture[str]) -> None:
    time = iter([0.0, 5.0, 5.0]).__next__
    Countdown("measurements", 1, now=time).done("engine")
    assert capsys.readouterr().err.splitlines()[-1] == "measurements 1/1: engine, took 0:05"
