"""Which prompts a report follows, and what it says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cures_core.config.curriculum import PosteriorConfig
from cures_core.config.run import RunConfig
from cures_core.curriculum import save_posterior
from cures_core.curriculum.posterior import Posterior
from cures_core.kept_rollouts.table import write_rollouts
from cures_core.prompts import PromptSet
from cures_core.prompts.identity import make_prompt
from cures_core.report.run_data import Named, PromptRow
from tasks.runs import prompt_stories as stories
from tasks.runs import training
from tasks.runs.prompt_stories import PROMPTS, ROLLOUTS, prompt_stories, spread
from tasks.runs.reading import RunRecords
from tasks.runs.records import Record
from tests.cures_core.kept_rollouts.rollouts import row
from tests.tasks.stages.figures import figures_of

CONFIG = RunConfig.model_validate(
    {"data": {"path": "p"}, "rollout": {"max_new_tokens": 4}, "training": {"learning_rate": 1e-3}}
)
SET = PromptSet.of([make_prompt(f"{i} + 1 =", str(i + 1), source="made") for i in range(40)])


def record(stage: str, key: str) -> Record[Any]:
    return Record(stage=stage, key=key, inputs={}, files=key, figures=figures_of(stage))


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunRecords:
    """A prior, an epoch of an earlier version that kept nothing, and one that kept rollouts of half of the prompts."""
    kept = [row(step=s, prompt=name, request=f"{name}{s}") for s in range(1, 11) for name in SET.ids[:20]]
    kept += [row(step=11, prompt=SET.ids[19], completion="x" * 5000), row(prompt=SET.ids[30], withheld=True)]
    for number, key in enumerate(("prior", "early", "late")):
        (tmp_path / key).mkdir()
        posterior = Posterior.fresh(SET, PosteriorConfig())
        posterior.update(list(SET.ids[:20]), np.full(20, 4.0 * number), np.zeros(20), 10 * number)
        save_posterior(posterior, tmp_path / key / "posterior.parquet")
    write_rollouts(kept, tmp_path / "late" / "rollouts.parquet")
    for module in (stories, training):
        monkeypatch.setattr(module, "files_of", lambda _, one: tmp_path / one.files)
    epochs = {1: record("train_epoch", "early"), 2: record("train_epoch", "late")}
    return RunRecords(prior=record("estimate_prior", "prior"), epochs=epochs)


def told(records: RunRecords, named: Named) -> list[Any]:
    return list(prompt_stories(None, CONFIG, records, named))  # type: ignore[arg-type]


def moved(*ids: str) -> Named:
    blank: dict[str, Any] = {"problem": "", "answer": "", "before": 0, "after": 0, "successes": 0, "failures": 0}
    return Named(moved=tuple(PromptRow(id=name, **blank) for name in ids))


def test_those_that_the_report_names_come_first_then_those_with_most_rollouts(records: RunRecords) -> None:
    silent, withheld, third = SET.ids[35], SET.ids[30], SET.ids[3]
    found = told(records, moved(silent, withheld, third))
    assert [one.id for one in found[:2]] == [third, SET.ids[19]]
    assert len(found) == 20 <= PROMPTS
    assert [(one.kept, len(one.rollouts)) for one in found[:2]] == [(10, ROLLOUTS), (11, ROLLOUTS)]
    assert [r.step for r in found[1].rollouts] == [1, 3, 5, 7, 9, 11]
    assert len(found[1].rollouts[-1].completion) < 1300


def test_beliefs_are_those_of_the_prior_and_the_epochs(records: RunRecords) -> None:
    one = told(records, moved())[0]
    assert [(b.label, b.step) for b in one.beliefs] == [("prior", 0), ("epoch 1", 10), ("epoch 2", 20)]
    assert one.beliefs[0].mean < one.beliefs[1].mean < one.beliefs[2].mean
    assert all(b.low <= b.mean <= b.high for b in one.beliefs[1:])
    assert one.beliefs[2].high - one.beliefs[2].low < one.beliefs[0].high - one.beliefs[0].low


def test_a_run_of_an_earlier_version_has_none(records: RunRecords) -> None:
    assert told(RunRecords(prior=records.prior, epochs={1: records.epochs[1]}), moved(SET.ids[3])) == []


def test_few_of_many_are_spread_evenly() -> None:
    assert spread(range(3), 5) == [0, 1, 2]
    assert spread(range(100), 3) == [0, 50, 99]
