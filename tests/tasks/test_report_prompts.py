"""Which prompts a report names, from two posteriors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cures_core.config.curriculum import PosteriorConfig
from cures_core.curriculum import save_posterior
from cures_core.curriculum.posterior import Posterior
from cures_core.prompts import PromptSet
from cures_core.prompts.identity import make_prompt
from tasks import report_prompts


def test_prompts_are_named_for_what_they_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = PromptSet.of([make_prompt(f"{i} + 1 =", str(i + 1), source="made") for i in range(40)])
    risen, hard, silent, unseen = prompts.ids[:4]
    before, after = (Posterior.fresh(prompts, PosteriorConfig()) for _ in range(2))
    after.update([risen, hard, silent], [8, 1, 0], [0, 7, 8], 1)
    for name, posterior in (("first", before), ("last", after)):
        (tmp_path / name).mkdir()
        save_posterior(posterior, tmp_path / name / "posterior.parquet")
    (tmp_path / "data").mkdir()
    prompts.write_parquet(tmp_path / "data" / "prompts.parquet")
    monkeypatch.setattr(report_prompts, "files_of", lambda _, record: tmp_path / record.name)
    records: list[Any] = [SimpleNamespace(name=name) for name in ("data", "first", "last")]
    found = report_prompts.prompt_figures(None, *records)  # type: ignore[arg-type]

    assert {row["id"] for row in found["moved"]} == {risen, hard, silent}
    assert found["hardest"][0]["id"] == hard
    assert [row["id"] for row in found["suspicious"]] == [silent]
    assert found["suspicious_total"] == 1
    (row,) = [row for row in found["moved"] if row["id"] == risen]
    assert row["after"] > 0.8 > row["before"]
    assert (row["successes"], row["failures"]) == (8, 0)
    assert unseen not in {row["id"] for rows in ("moved", "hardest", "suspicious") for row in found[rows]}
    shares = found["allocation"]
    assert sum(shares["prompts"]) == pytest.approx(1)
    assert sum(shares["rollouts"]) == pytest.approx(1)
    top = [
        share for share, prompts_there in zip(shares["rollouts"], shares["prompts"], strict=True) if prompts_there > 0.5
    ]
    assert top == [0.0]  # where most prompts are, none was tried
