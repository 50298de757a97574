"""What a redaction takes out is nowhere but among the prompts themselves: not in the store, on pages, in logs; nor is
it while a run is broken off."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cures_core.kept_rollouts.redaction import WITHHELD
from cures_core.kept_rollouts.table import read_rollouts
from tasks.runs.figures import EpochFigures
from tasks.runs.reading import by_epoch
from tasks.runs.records import files_of
from tasks.storage import LocalStore
from tests.end_to_end.pipeline import cures, write_profile

pytestmark = pytest.mark.end_to_end

HOOKS = "tests.cures_core.kept_rollouts.hooks"
MORE = "[kept_rollouts]\nshare = 1.0\nper_step = 16\n"
INPUTS = re.compile(r"\.cures/(artifacts|scratch)/(validate_dataset|prepare_policy)/|/data/")
"""Where prompts are as they were read, because training reads them there."""


def profile(folder: Path, hook: str, *faults: str) -> Path:
    path = write_profile(folder, faults, MORE)
    path.write_text(f'redact = "{HOOKS}:{hook}"\n{path.read_text()}')
    return path


def written(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file below a folder as text, tables row by row, but for the inputs."""
    for path in folder.rglob("*"):
        if path.is_file() and not INPUTS.search(str(path)):
            table = pq.read_table(path).to_pylist() if path.read_bytes()[:4] == b"PAR1" else None
            yield path, path.read_text(errors="replace") if table is None else json.dumps(table, default=str)


def problems(folder: Path) -> set[str]:
    """What must not be found: every problem of training and evaluation."""
    files = [folder / "data/chains" / name for name in ("train.jsonl", "heldout.jsonl")]
    rows = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    return {row["problem"] for row in rows}


def assert_clean(folder: Path) -> None:
    secret = problems(folder)
    shape = re.compile(r'\d[^\s"=]*=')  # only texts that could be one are looked up
    assert all(shape.fullmatch(problem) for problem in secret)
    for path, text in written(folder):
        found = set(shape.findall(text)) & secret
        assert not found, (path, sorted(found)[:3])


@pytest.mark.parametrize("hook", ["without_digits", "failing_on_digits"])
def test_a_run_writes_nothing_that_was_to_be_taken_out(hook: str, tmp_path: Path) -> None:
    faults = ("train.step:6=kill", "eval.chunk:1=kill")
    broken = cures("run", "--config", profile(tmp_path, hook, *faults), "--json", cwd=tmp_path)
    assert problems(tmp_path)
    assert_clean(tmp_path)
    outcome = broken if broken.code == 0 else cures("run", "--config", tmp_path / "tiny.toml", "--json", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert_clean(tmp_path)
    store, run = LocalStore(tmp_path / ".cures"), outcome.summary["run"]
    epochs = by_epoch(store, run, EpochFigures)
    rows = [row for one in epochs.values() for row in read_rollouts(files_of(store, one) / "rollouts.parquet").rows]
    assert len(rows) == 2 * 4 * 16
    page = Path(outcome.summary["report"]).read_text()
    if hook == "without_digits":
        assert not any(c.isdigit() for row in rows for c in row.problem + row.completion + row.answer + row.extracted)
        assert any(row.completion for row in rows)
        assert "#" in page[page.index("Prompts and what the policy wrote") :]
    else:
        assert all(row.withheld for row in rows)
        assert sum(one.figures.kept_rollouts["withheld"] for one in epochs.values()) == len(rows)
        assert WITHHELD in page
        assert f"The redaction failed on {len(rows)} kept rollouts" in page
        assert "WARNING: the redaction failed on" in outcome.err
