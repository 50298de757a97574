"""The report's table of sources: what was drawn of each, who judged it, and how it came out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cures_core.config.curriculum import PosteriorConfig
from cures_core.config.rewards import BySourceConfig, ExactConfig, MathConfig, NumericConfig, SourceReward
from cures_core.curriculum import Posterior, save_posterior
from cures_core.prompts import PromptSet, make_prompt
from cures_core.report import ReportData, render
from tasks.runs import by_source

REWARD = BySourceConfig(
    default=ExactConfig(),
    by_source=(
        SourceReward(sources=("sums",), verifier=NumericConfig()),
        SourceReward(name="strict", verifier=MathConfig()),
    ),
)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The rows of a set, with the votes of the last epoch, if there was one."""

    def made(prompts: PromptSet, rejected: dict[str, int], votes: dict[str, tuple[int, int, int]] | None) -> Any:
        names = ["data"] if votes is None else ["data", "first", "last"]
        for name in names:
            (tmp_path / name).mkdir()
        prompts.write_parquet(tmp_path / "data" / "prompts.parquet")
        (tmp_path / "data" / "validation.json").write_text(json.dumps({"prompts": {"golds_rejected": rejected}}))
        for name in names[1:]:
            posterior = Posterior.fresh(prompts, PosteriorConfig())
            if name == "last":
                posterior.update(prompts.ids[:1], [30], [0], 1)
            save_posterior(posterior, tmp_path / name / "posterior.parquet")
        fields = ("rollouts", "correct", "unknown")
        tally = {i: {**dict(zip(fields, v, strict=True)), "wrong": {}} for i, v in (votes or {}).items()}
        if votes is not None:
            (tmp_path / "last" / "tally.json").write_text(json.dumps(tally))
        for module in (by_source, by_source.tally_of.__globals__):
            if isinstance(module, dict):
                monkeypatch.setitem(module, "files_of", lambda _, record: tmp_path / record.name)
            else:
                monkeypatch.setattr(module, "files_of", lambda _, record: tmp_path / record.name)
        data, *states = [SimpleNamespace(name=name) for name in names]
        return by_source.source_rows(None, REWARD, data, dict(enumerate(states)))  # type: ignore[arg-type]

    return made


def test_a_row_for_each_source_the_largest_first(rows: Any) -> None:
    one, two, three = (make_prompt(f"{i} + 1 =", str(i), source="sums") for i in range(3))
    word, named = make_prompt("word", "w"), replace(make_prompt("named", "n"), verifier="strict")
    prompts = PromptSet.of([one, two, three, word, named])
    found = rows(prompts, {"sums": 2, "gone": 1}, {one.id: (8, 4, 2), two.id: (4, 0, 0), named.id: (4, 4, 0)})
    assert [row.source for row in found] == ["sums", "", "gone"]
    sums, unnamed, gone = found
    assert (sums.verifier, sums.prompts, sums.golds_rejected, sums.drawn, sums.rollouts) == ("numeric", 3, 2, 2, 12)
    assert (sums.share, sums.correct) == (0.75, 0.4)
    assert set(unnamed.verifier.split(", ")) == {"exact (default)", "strict"}
    assert (gone.prompts, gone.golds_rejected, gone.share, gone.correct, gone.before) == (0, 1, 0.0, None, None)
    risen = next(row for row in found if prompts[0].source == row.source)
    assert risen.after > risen.before
    page = render(ReportData(run="r", sources=found))
    assert "By source" in page
    assert "<td>numeric</td>" in page


def test_before_training_there_are_prompts_alone_and_one_source_needs_no_table(rows: Any, tmp_path: Path) -> None:
    prompts = PromptSet.of([make_prompt("a", "1", source="x"), make_prompt("b", "2", source="y")])
    found = rows(prompts, {}, None)
    assert [(row.source, row.prompts, row.share, row.before) for row in found] == [
        ("x", 1, None, None),
        ("y", 1, None, None),
    ]


def test_one_source_needs_no_table(rows: Any) -> None:
    assert rows(PromptSet.of([make_prompt("a", "1", source="x")]), {}, None) == ()
