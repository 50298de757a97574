from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cures_core.errors import CorruptArtifact
from tasks.inputs.builtin import ensure_builtin
from tests.end_to_end.pipeline import PROJECT


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what a fresh clone has: no data, no DVC cache."""
    for name in (".dvc/config", ".dvcignore", "data.dvc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, tmp_path / name)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_fresh_clone_makes_the_sets_that_are_tracked(checkout: Path) -> None:
    ensure_builtin(Path("data/chains/train.jsonl"))
    names = {p.relative_to(checkout / "data").as_posix() for p in (checkout / "data").rglob("*.jsonl")}
    assert names == {f"chains/{n}.jsonl" for n in ("train", "heldout", "frontier")} | {
        "sums/train.jsonl",
        "sums/heldout.jsonl",
    }


def test_other_bytes_than_the_tracked_ones_are_refused(checkout: Path) -> None:
    (checkout / "data/sums").mkdir(parents=True)
    (checkout / "data/sums/train.jsonl").write_text('{"problem": "1+1", "answer": "2"}\n')
    with pytest.raises(CorruptArtifact, match=r"data\.dvc names"):
        ensure_builtin(Path("data/chains/train.jsonl"))


def test_what_is_there_or_not_built_in_is_left_alone(checkout: Path) -> None:
    ensure_builtin(Path("data/mine/train.jsonl"))
    ensure_builtin(Path("elsewhere/chains/train.jsonl"))
    assert not (checkout / "data").exists()
