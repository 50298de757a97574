"""Which prompts a report names, from two posteriors."""

from __future__ import annotations

import json
import operator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cures_core.config.curriculum import PosteriorConfig
from cures_core.curriculum import save_posterior
from cures_core.curriculum.posterior import Posterior
from cures_core.evaluation.items import ItemResult, write_items
from cures_core.kept_rollouts.redaction import Redactor
from cures_core.prompts import PromptSet
from cures_core.prompts.identity import make_prompt
from tasks.runs import notable_prompts


def test_prompts_are_named_for_what_they_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = PromptSet.of([make_prompt(f"{i} + 1 =", str(i + 1), source="made") for i in range(40)])
    risen, hard, silent, unseen, disputed, unjudged, few = prompts.ids[:7]
    before, after = (Posterior.fresh(prompts, PosteriorConfig()) for _ in range(2))
    after.update([risen, hard, silent], [8, 1, 0], [0, 7, 8], 1)
    for name, posterior in (("first", before), ("last", after)):
        (tmp_path / name).mkdir()
        save_posterior(posterior, tmp_path / name / "posterior.parquet")
    counts = {
        risen: (16, 12, 0, {"9": 4}),
        hard: (12, 3, 0, {"9": 6, "8": 3}),  # half of them is no majority
        silent: (8, 0, 1, {"8": 3, "9": 3}),
        disputed: (8, 1, 0, {"12": 6, "11": 1}),
        unjudged: (5, 0, 5, {}),
        few: (3, 0, 0, {"9": 3}),
        "left the set": (8, 0, 8, {}),
    }
    fields = ("rollouts", "correct", "unknown", "wrong")
    tally = {name: dict(zip(fields, values, strict=True)) for name, values in counts.items()}
    (tmp_path / "last" / "tally.json").write_text(json.dumps(tally))
    (tmp_path / "data").mkdir()
    prompts.write_parquet(tmp_path / "data" / "prompts.parquet")
    monkeypatch.setattr(notable_prompts, "files_of", lambda _, record: tmp_path / record.name)
    records: list[Any] = [SimpleNamespace(name=name) for name in ("data", "first", "last")]
    found = notable_prompts.named_prompts(None, *records, Redactor())  # type: ignore[arg-type]

    assert {row.id for row in found.moved} == {risen, hard, silent}
    assert found.hardest[0].id == hard
    named = {one.reason: [(row.id, row.evidence) for row in one.rows] for one in found.suspicious}
    assert named == {
        "never a verdict": [(unjudged, "no verdict in 5 rollouts")],
        "answer disputed": [(disputed, "6 of 8 rollouts answer 12, 1 the gold answer")],
        "never solved": [(silent, "7 rollouts, none correct")],
    }
    assert [one.total for one in found.suspicious] == [1, 1, 1]
    (row,) = [row for row in found.moved if row.id == risen]
    assert row.after > 0.8 > row.before
    assert (row.successes, row.failures) == (8, 0)
    assert unseen not in {row.id for rows in (found.moved, found.hardest) for row in rows}
    shares = found.allocation
    assert shares is not None
    assert sum(shares.prompts) == pytest.approx(1)
    assert sum(shares.rollouts) == pytest.approx(1)
    top = [share for share, prompts_there in zip(shares.rollouts, shares.prompts, strict=True) if prompts_there > 0.5]
    assert top == [0.0]  # where most prompts are, none was tried
    before_training = notable_prompts.named_prompts(None, records[0], records[1], records[1], Redactor())  # type: ignore[arg-type]
    assert before_training.suspicious == ()


def test_items_of_suites_are_named_by_what_all_evaluations_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = PromptSet.of([make_prompt(f"{i} + 1 =", str(i + 1)) for i in range(6)])
    good, disputed, unsolved, unjudged, split = prompts.ids[:5]
    kinds: dict[
        str, list[tuple[int, int, str, int]]
    ] = {  # correct, unknown, rival, its votes: first and last evaluation
        good: [(1, 0, "9", 3), (4, 0, "", 0)],
        disputed: [(1, 0, "0.5", 2), (0, 0, "1/2", 4)],
        unsolved: [(0, 0, "9", 2), (0, 0, "8", 2)],
        unjudged: [(0, 4, "", 0), (0, 4, "", 0)],
        split: [(0, 0, "9", 4), (4, 0, "", 0)],  # one half of all is no majority
    }
    prompts.take([prompts.ids.index(name) for name in kinds]).write_parquet(
        _folder(tmp_path / "data" / "suites") / "s.parquet"
    )
    for at in (0, 1):
        items = [
            ItemResult(name, "", "", *row[at][:2], 4, 0, 9, None, None, "", *row[at][2:]) for name, row in kinds.items()
        ]
        write_items(items, _folder(tmp_path / str(at)) / "items-s.parquet")
    monkeypatch.setattr(notable_prompts, "files_of", lambda _, record: tmp_path / record.name)
    data, *scores = [SimpleNamespace(name=name) for name in ("data", "0", "1")]
    found = notable_prompts.suspicious_items(None, data, scores, ["s"], Redactor())  # type: ignore[arg-type]

    assert [(one.suite, one.reason, one.total) for one in found] == [
        ("s", "never a verdict", 1),
        ("s", "answer disputed", 1),
        ("s", "never solved", 1),
    ]
    rows = {one.reason: one.rows[0] for one in found}
    assert rows["answer disputed"].id == disputed
    assert rows["answer disputed"].evidence == "6 of 8 rollouts answer 0.5, 1 the gold answer"
    assert operator.attrgetter("before", "after", "successes", "failures")(rows["answer disputed"]) == (0.25, 0, 1, 7)
    assert (rows["never a verdict"].id, rows["never a verdict"].failures) == (unjudged, 0)
    assert rows["never solved"].id == unsolved


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
