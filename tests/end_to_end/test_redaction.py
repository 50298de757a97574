"""What a redaction takes out is nowhere but among the prompts themselves: not in the store, nor on pages, nor in logs;
nor is it while a run is broken off. All stages with their jobs, without a server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cures_core.config.run import RunConfig
from cures_core.errors import CuresError
from cures_core.kept_rollouts.redaction import WITHHELD
from cures_core.kept_rollouts.table import KeptRollout, read_rollouts
from tasks.runs.opening import open_run
from tasks.runs.reading import RunRecords
from tasks.runs.records import RunRef, files_of
from tasks.stages import estimate_prior, evaluate_checkpoint, prepare_policy, report, train_epoch, validate_dataset
from tasks.storage import Store, open_store

pytestmark = pytest.mark.end_to_end

HOOKS = "tests.cures_core.kept_rollouts.hooks"
INPUTS = re.compile(r"/(artifacts|scratch)/(validate_dataset|prepare_policy)/")
"""Where prompts are as they were read, because training reads them there."""
FAULTS = ["train.step:2=kill", "eval.chunk:1=kill"]


def config(folder: Path, hook: str, faults: list[str]) -> RunConfig:
    for name, first in (("train", 100), ("exam", 500)):
        rows = [{"problem": f"{i}+{i + 7}=", "answer": str(2 * i + 7)} for i in range(first, first + 24)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values: dict[str, Any] = {
        "redact": f"{HOOKS}:{hook}",
        "faults": faults,
        "steps_per_epoch": 3,
        "data": {"path": str(folder / "train.jsonl")},
        "policy": {"type": "warm-start", "hidden_size": 32, "layers": 1, "heads": 2, "steps": 20, "batch": 16},
        "rollout": {"max_new_tokens": 6},
        "reward": {"type": "custom", "function": "tests.own_verifiers:has_a_low_digit"},
        "prior": {"type": "sample", "budget": 16},
        "curriculum": {"type": "uniform", "prompts_per_step": 6, "rollouts_per_step": 24},
        "kept_rollouts": {"share": 1.0, "per_step": 16},
        "training": {"learning_rate": 1e-3},
        "evaluation": {"suites": [{"name": "exam", "path": str(folder / "exam.jsonl")}], "chunk_prompts": 8},
        "store": {"url": str(folder / "store")},
        "device": {"type": "cpu"},
    }
    return RunConfig.model_validate(values)


def run_stages(run: RunRef) -> tuple[RunRecords, Path]:
    """All stages but snapshots and promotion, which read no texts; the records, and the report's page."""

    def call(stage: Any, *arguments: Any) -> Any:
        return stage.__wrapped__(run, *arguments)

    data, policy = call(validate_dataset.validate_dataset), call(prepare_policy.prepare_policy)
    prior = call(estimate_prior.estimate_prior, data, policy)
    epoch = call(train_epoch.train_epoch, 1, data, policy, prior)
    scores = call(evaluate_checkpoint.evaluate_checkpoint, 1, data, policy, epoch)
    records = RunRecords(data, policy, prior, {1: epoch}, {1: scores})
    page = call(report.report, records)
    return records, open_store(run.config.store).local_path(page.files) / "report.html"


def whole_run(folder: Path, hook: str, faults: list[str]) -> tuple[RunRecords, str]:
    """Started again until it ends; after every failure nothing of the prompts lies about."""
    for _ in range(len(faults) + 1):
        try:
            with open_run(config(folder, hook, faults)) as run:
                records, page = run_stages(run)
            return records, page.read_text()
        except CuresError:
            assert_clean(folder)
    raise AssertionError("failed more often than it was made to")


def written(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every file of the store as text, tables row by row, but for the inputs."""
    for path in (folder / "store").rglob("*"):
        if path.is_file() and not INPUTS.search(str(path)):
            table = pq.read_table(path).to_pylist() if path.read_bytes()[:4] == b"PAR1" else None
            yield path, path.read_text(errors="replace") if table is None else json.dumps(table, default=str)


def assert_clean(folder: Path) -> None:
    for path, text in written(folder):
        assert not re.search(r"\d{3}\+\d{3}=", text), path


def rows_of(store: Store, records: RunRecords) -> tuple[KeptRollout, ...]:
    return read_rollouts(files_of(store, records.epochs[1]) / "rollouts.parquet").rows


def test_a_run_writes_nothing_that_was_to_be_taken_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = open_store(config(tmp_path, "without_digits", []).store)
    records, page = whole_run(tmp_path, "without_digits", FAULTS)
    assert len(list((tmp_path / "store" / "faults").rglob("*.kill"))) == len(FAULTS)
    assert_clean(tmp_path)
    rows = rows_of(store, records)
    assert len(rows) == 3 * 16
    assert not any(c.isdigit() for row in rows for c in row.problem + row.completion + row.answer + row.extracted)
    assert {row.problem for row in rows} == {"###+###="}
    assert "###+###=" in page[page.index("what the policy wrote") :]

    records, page = whole_run(tmp_path, "failing_on_digits", [])  # whose errors hold the texts
    assert_clean(tmp_path)
    assert all(row.withheld for row in rows_of(store, records))
    assert records.epochs[1].figures.kept_rollouts["withheld"] == 3 * 16
    assert WITHHELD in page
    assert "The redaction failed on 48 kept rollouts" in page
    assert not re.search(r"\d{3}\+\d{3}=", "".join(capfd.readouterr()))
