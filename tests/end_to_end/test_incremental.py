"""A changed prompt set: a run that starts from an earlier posterior rolls out only what is new; snapshots as files."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from cures_core.builtin import chains
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
