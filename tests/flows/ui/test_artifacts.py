"""What the UI is shown: progress in per cent, keys, a picture that holds the posterior."""

from __future__ import annotations

import base64
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cures_core.config.curriculum import PosteriorConfig
from cures_core.curriculum import Posterior, save_posterior
from cures_core.events import PartDone, StepDone
from cures_core.prompts import PromptSet
from cures_core.prompts.identity import make_prompt
from flows.ui.artifacts import artifact_key, expectation_rows, links_text, percent_done, posterior_picture
from tasks.progress import Event, RunOpened
from tasks.runs.figures import PromoteFigures
from tasks.runs.summary import PromptsMoved, RunSummary


@pytest.mark.parametrize(
    ("event", "percent"),
    [
        (StepDone(epoch=2, seconds=1.0, metrics={"step": 15}, last_step=20), 50.0),
        (StepDone(epoch=2, seconds=1.0, metrics={"step": 20}, last_step=20), 100.0),
        (PartDone(part="prior", done=3, total=12), 25.0),
        (PartDone(part="prior", done=0, total=0), None),
        (RunOpened("demo"), None),
    ],
)
def test_progress_is_a_share_of_the_stage(event: Event, percent: float | None) -> None:
    assert percent_done(event, 10) == percent


def test_keys_are_what_prefect_accepts() -> None:
    assert artifact_key("Qwen2.5-math_1.5b-00ff") == "qwen2-5-math-1-5b-00ff"


def test_the_picture_changes_with_the_posterior(tmp_path: Path) -> None:
    posterior = Posterior.fresh(PromptSet.of([make_prompt(f"{i}+1=", "2") for i in range(9)]), PosteriorConfig())
    save_posterior(posterior, tmp_path / "a.parquet")
    ids = [x.decode() for x in posterior.ids.tolist()]
    posterior.update(ids, np.full(9, 8.0), np.zeros(9), step=0)
    save_posterior(posterior, tmp_path / "b.parquet")
    pictures = [posterior_picture([tmp_path / "a.parquet", tmp_path / f"{name}.parquet"]) for name in "ab"]
    assert pictures[0] != pictures[1]
    svg = base64.b64decode(pictures[1].partition("base64,")[2].rstrip(")\n"))
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"


def test_links_name_report_docs_snapshot_and_counts() -> None:
    summary = RunSummary(
        run="a-1",
        stages=(),
        scores=(),
        rollouts={},
        prompts=PromptsMoved(kept=9, reset=2, archived=1),
        snapshot="posterior/a-1/2",
        promoted=PromoteFigures(promoted=False, reasons=("too close",), model="m", incumbent="a-0"),
        report="r.html",
    )
    text = links_text(summary, Path("docs/index.html"))
    for words in (
        "r.html",
        "docs/index.html",
        "posterior/a-1/2",
        "9 kept, 2 reset, 1 archived",
        "not promoted: too close",
    ):
        assert words in text


def test_unmet_expectations_come_first() -> None:
    row = {"expectation": "e", "column": "c", "description": "d", "severity": "warning", "unexpected": 0, "error": ""}
    found = {"expectations": [{**row, "success": True}, {**row, "success": False, "unexpected": 2}]}
    assert [(one["success"], one["unexpected"]) for one in expectation_rows(found)] == [(False, 2), (True, 0)]
    assert "error" not in expectation_rows(found)[0]
