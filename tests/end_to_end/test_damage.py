"""Damage in a finished run's store: commands that read say what, and what mends it, and leave all as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.runs.figures import FIGURES, EpochFigures
from tasks.runs.notes import stage_record
from tasks.storage import LocalStore
from tests.end_to_end.pipeline import cures, results, write_profile
from tests.tasks.runs.test_verify import held

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder where the tiny profile has run and promoted, and the run's name."""
    folder = tmp_path_factory.mktemp("run")
    outcome = cures("run", "--config", write_profile(folder), "--json", cwd=folder)
    assert outcome.code == 0, outcome.err
    name = outcome.summary["run"]
    forced = cures("promote", name, "--model", "m", "--override", "--why", "a test", cwd=folder)
    assert forced.code == 0, forced.err
    return folder, name


def flipped(path: Path) -> Iterator[None]:
    """The last byte of a file changed, its length as it was; put back afterwards."""
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    yield
    path.write_bytes(whole)


FILES = [
    (("posterior", "show", "--run", "RUN"), "train_epoch", "2", "posterior.parquet"),
    (("curriculum", "explain", "--run", "RUN"), "train_epoch", "2", "posterior.parquet"),
    (("curriculum", "hopeless", "--run", "RUN"), "validate_dataset", "", "prompts.parquet"),
    (("report", "RUN"), "train_epoch", "1", "checkpoint/metrics.jsonl"),
    (("watch", "RUN"), "evaluate_checkpoint", "2", "scores.json"),
    (("runs", "compare", "RUN", "OTHER"), "evaluate_checkpoint", "2", "items-heldout.parquet"),
    (("runs", "scores", "RUN"), "evaluate_checkpoint", "2", "scores.json"),
    (("models", "export", "m", "--out", "exported"), "train_epoch", "2", "checkpoint/weights.safetensors"),
    (("models", "show", "m"), "train_epoch", "2", "checkpoint/weights.safetensors"),
    (("promote", "RUN", "--model", "other"), "evaluate_checkpoint", "2", "items-heldout.parquet"),
]


@pytest.mark.parametrize(("command", "stage", "label", "file"), FILES, ids=lambda value: str(value)[:40])
def test_a_damaged_file_is_named_with_what_mends_it_and_nothing_is_touched(
    done: tuple[Path, str], command: tuple[str, ...], stage: str, label: str, file: str
) -> None:
    folder, run = done
    record = stage_record(LocalStore(folder / ".cures"), run, FIGURES[stage], label)
    assert record is not None
    other = "another" if "OTHER" in command else ""
    words = [run if word == "RUN" else word for word in command if word != "OTHER"]
    if other:
        compared = cures("run", "--config", folder / "tiny.toml", "--set", "epochs=1", "--json", cwd=folder)
        words.append(compared.summary["run"])
    for _ in flipped(folder / ".cures" / str(record.files) / file):
        before = held(folder / ".cures")
        outcome = cures(*words, cwd=folder)
        assert outcome.code == 1, outcome.out
        told = outcome.err + outcome.out
        assert file in told
        assert f"cures run --resume {run}" in told
        assert "Traceback" not in told
        after = held(folder / ".cures")
        assert {name for name in before if after.get(name) != before[name]} <= {f"leases/{run}.json"}


def test_verify_names_it_and_the_command_it_names_mends_it(done: tuple[Path, str]) -> None:
    folder, run = done
    before = results(folder, run)
    record = stage_record(LocalStore(folder / ".cures"), run, EpochFigures, "1")
    assert record is not None
    weights = folder / ".cures" / str(record.files) / "checkpoint" / "weights.safetensors"
    next(flipped(weights))
    told = cures("runs", "verify", run, "--json", cwd=folder)
    assert told.code == 1, told.err
    (finding,) = json.loads(told.out)["damaged"]
    assert (finding["place"], finding["remedy"]) == (record.files, f"cures run --resume {run}")
    assert "weights.safetensors" in finding["fault"]
    mended: dict[str, Any] = cures(*finding["remedy"].split()[1:], "--json", cwd=folder).summary
    assert [stage["name"] for stage in mended["stages"] if not stage["cached"]] == ["train_epoch 1"]
    assert results(folder, run) == before
    assert weights.exists()
    assert cures("runs", "verify", "--all", cwd=folder).code == 0
