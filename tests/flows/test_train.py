"""What is told of a run without its flow."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import train
from tasks.runs.again import stages_in_order
from tasks.runs.records import RunRef
from tasks.runs.summary import RunSummary, StageOutcome
from tests.tasks.stages.starts import config_in


def test_a_run_that_has_lost_a_note_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunRef(name="run", config=config_in(tmp_path, 1e-4), token=0)
    named = [name.replace("-", " ") for name in stages_in_order(run.config)]
    noted = [StageOutcome(name=name, key="k", cached=False) for name in named]
    monkeypatch.setattr(train, "_chain", lambda _: (RunSummary.model_construct(stages=tuple(noted)), None))
    done = train.already_done(run)
    assert done is not None
    assert [stage.name for stage in done.stages] == named
    noted.pop(5)
    assert train.already_done(run) is None
