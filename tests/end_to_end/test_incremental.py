"""A changed prompt set: a run that starts from an earlier posterior rolls out only what is new; snapshots as files."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from cures_core.builtin import chains
from cures_core.curriculum import CuresConfig, Curriculum, save_posterior
from tests.end_to_end.pipeline import cures, write_profile

pytestmark = pytest.mark.end_to_end


def test_only_new_and_edited_prompts_are_rolled_out(tmp_path: Path) -> None:
    chains.write_builtin(tmp_path / "data" / "chains")
    profile = write_profile(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "data/chains/train.jsonl").read_text().splitlines()][:200]
    write(tmp_path / "one.jsonl", rows[:100])
    write(tmp_path / "two.jsonl", [*rows[3:100], *rows[100:105]])
    full = ["--set", "prior.type=full", "--set", "prior.rollouts_per_prompt=2", "--set", "epochs=1"]
    flags = ["--json", *(text for text in full)]
    profile.write_text(profile.read_text().replace("budget = 32\n", ""))
    first = cures("run", "--config", profile, "--set", "data.path=one.jsonl", *flags, cwd=tmp_path)
    assert first.code == 0, first.err
    prompts = first.summary["rollouts"]["prior"] // 2
    assert first.summary["prompts"] == {"kept": 0, "reset": prompts, "archived": 0}
    tag = f"posterior/{first.summary['run']}/0"
    start = ["--set", f"prior.start_from={tag}"]
    second = cures("run", "--config", profile, "--set", "data.path=two.jsonl", *flags, *start, cwd=tmp_path)
    assert second.code == 0, second.err
    moved = second.summary["prompts"]
    assert moved["archived"] == 3
    assert moved["reset"] == 5
    assert moved["kept"] == prompts - 3
    assert second.summary["rollouts"]["prior"] == 5 * 2
    assert f"Started from {tag}" in Path(second.summary["report"]).read_text()
    again = f"posterior/{second.summary['run']}/0"

    found = json.loads(cures("posterior", "diff", tag, again, "--json", cwd=tmp_path).out)
    assert (found["added"], found["removed"]) == (5, 0)  # what has left is kept in the archive
    assert found["lineage"]["prompts"][0] != found["lineage"]["prompts"][1]
    for name, read in (("p.parquet", pd.read_parquet), ("p.csv", pd.read_csv)):
        assert cures("posterior", "export", again, name, cwd=tmp_path).code == 0
        assert len(read(tmp_path / name)) == prompts + 5
    assert cures("posterior", "export", again, "p.txt", cwd=tmp_path).code == 2

    for path in (tmp_path / ".cures/dvc").rglob("*"):
        if path.is_file():
            path.unlink()
    assert cures("posterior", "export", again, "gone.parquet", cwd=tmp_path).code == 1
    assert "put back" in cures("posterior", "restore", again, cwd=tmp_path).out
    assert "nothing to do" in cures("posterior", "restore", again, cwd=tmp_path).out
    assert cures("posterior", "export", again, "back.parquet", cwd=tmp_path).code == 0
    assert (tmp_path / "back.parquet").read_bytes() == (tmp_path / "p.parquet").read_bytes()


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_run_goes_on_from_what_another_trainer_has_learnt(tmp_path: Path) -> None:
    """Only the prompts that the other trainer never saw are rolled out for the prior."""
    chains.write_builtin(tmp_path / "data" / "chains")
    profile = write_profile(tmp_path)
    profile.write_text(profile.read_text().replace("budget = 32\n", ""))
    rows = [json.loads(line) for line in (tmp_path / "data/chains/train.jsonl").read_text().splitlines()][:104]
    write(tmp_path / "theirs.jsonl", rows[:100])
    write(tmp_path / "ours.jsonl", rows)
    curriculum = Curriculum.from_table(
        {"problem": [row["problem"] for row in rows[:100]], "answer": [row["answer"] for row in rows[:100]]},
        CuresConfig(prompts_per_step=100, rollouts_per_step=400),
    )
    for ask in curriculum.ask():
        curriculum.tell(ask.request_id, correct=ask.n // 2, wrong=ask.n - ask.n // 2)
    assert curriculum.ready() is not None
    save_posterior(curriculum.posterior, tmp_path / "theirs.parquet")

    names = ["--dataset", "theirs.jsonl", "--name", "theirs", "--trainer", "another 1.0"]
    published = cures("posterior", "publish", "theirs.parquet", *names, "--json", cwd=tmp_path)
    assert published.code == 0, published.err
    known = json.loads(published.out)["known"]

    options = {
        "data.path": "ours.jsonl",
        "prior.type": "full",
        "prior.rollouts_per_prompt": 2,
        "prior.start_from": json.loads(published.out)["tag"],
        "epochs": 1,
    }
    flags = [text for name, value in options.items() for text in ("--set", f"{name}={value}")]
    run = cures("run", "--config", profile, "--json", *flags, cwd=tmp_path)
    assert run.code == 0, run.err
    moved = run.summary["prompts"]
    assert (moved["kept"], moved["archived"]) == (known, 0)
    assert moved["reset"] > 0
    assert run.summary["rollouts"]["prior"] == 2 * moved["reset"]
    assert "Started from posterior/theirs/0" in Path(run.summary["report"]).read_text()
    tags = ("posterior/theirs/0", f"posterior/{run.summary['run']}/0")
    found = json.loads(cures("posterior", "diff", *tags, "--json", cwd=tmp_path).out)
    assert found["lineage"]["parent"] == [None, "posterior/theirs/0"]
