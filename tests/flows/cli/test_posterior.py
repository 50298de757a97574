"""What `cures posterior show` says of the predictions."""

from __future__ import annotations

from typing import Any

import pytest

from flows.cli.posterior import show_command


@pytest.mark.parametrize(
    ("calibration", "line"),
    [
        (None, "no verdict yet: no prediction was checked"),
        ({}, "no verdict yet: no prediction was checked"),
        ({"mae": 0.25, "brier": 0.125}, "calibration of the last epoch: mean absolute error 0.250, Brier score 0.125"),
    ],
)
def test_figures_that_are_not_defined_are_not_told(
    calibration: Any, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {
        "run": "demo-1",
        "epoch": 1,
        "prompts": 2,
        "prompts_with_evidence": 0,
        "evidence": 0.0,
        "prior": {"a": 1.0, "b": 1.0},
        "frontier_share": 1.0,
        "dead_share": 0.1,
        "histogram": [0, 2],
        "calibration": calibration,
    }
    monkeypatch.setattr("tasks.runs.summary.posterior_summary", lambda *_: shown)
    monkeypatch.setattr("tasks.runs.summary.find_posterior", lambda _, run: run)
    show_command("demo-1")
    assert capsys.readouterr().out.splitlines()[-1] == line
