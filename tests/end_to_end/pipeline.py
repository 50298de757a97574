"""A run small enough for tests: the whole pipeline through the `cures` command, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cures_core.files import digest_file, digest_folder
from tasks.runs.notes import noted_record, stage_notes
from tasks.storage import LocalStore, Store

PROJECT = Path(__file__).resolve().parents[2]

_FURTHER = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]

PROFILE = """
name = "tiny"
seed = 3
epochs = 2
steps_per_epoch = 4
checkpoint_every = 1
[data]
path = "data/chains/train.jsonl"
[policy]
type = "warm-start"
hidden_size = 32
layers = 1
heads = 2
steps = 200
batch = 32
checkpoint_every = 10
[rollout]
type = "hf"
max_new_tokens = 6
[prior]
type = "sample"
budget = 32
chunk_prompts = 4
[curriculum]
type = "cures"
prompts_per_step = 20
rollouts_per_step = 32
[curriculum.allocation]
type = "screen"
[training]
type = "torch"
learning_rate = 1e-3
solved_advantage = 1.0
[evaluation]
chunk_prompts = 8
resamples = 200
[[evaluation.suites]]
name = "heldout"
path = "data/chains/heldout.jsonl"
limit = 24
samples = 2
greedy = true
[promotion]
model = "tiny"
suites = ["heldout"]
"""


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """The JSON object that `cures run --json` ends with."""
        return json.loads(self.out.splitlines()[-1])  # type: ignore[no-any-return]


def cures(*arguments: object, cwd: Path, env: dict[str, str] | None = None, timeout: float = 900) -> Outcome:
    """Run the `cures` command in `cwd`."""
    return run_module("flows.cli.main", *arguments, cwd=cwd, env=env, timeout=timeout)


def run_module(
    module: str, *arguments: object, cwd: Path, env: dict[str, str] | None = None, timeout: float = 900
) -> Outcome:
    """Run `python -m module` in `cwd`, importing this checkout."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), *_FURTHER]), **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def run_to_the_end(folder: Path, profile: Path, most_kills: int) -> tuple[Outcome, int]:
    """Start the run again until it ends by itself; returns the last outcome and how often it was killed."""
    for kills in range(most_kills + 2):
        outcome = cures("run", "--config", profile, "--json", cwd=folder)
        if outcome.code != -9:
            return outcome, kills
    raise AssertionError(f"still killed after {most_kills + 2} starts")


def write_profile(folder: Path, faults: Sequence[str] = (), more: str = "") -> Path:
    """The tiny profile in `folder`/tiny.toml."""
    path = folder / "tiny.toml"
    path.write_text(f"faults = {json.dumps(list(faults))}\n{PROFILE}{more}")
    return path


def results(folder: Path, run: str) -> dict[str, str]:
    """Digests of what a run with its store in `folder` made."""
    return results_in(LocalStore(folder / ".cures"), run)


def results_in(store: Store, run: str) -> dict[str, str]:
    """Digests of what a run made: checkpoints (metrics inside), posteriors, scores and items."""
    found: dict[str, str] = {}
    for note in stage_notes(store, run):
        record = noted_record(store, note)
        if record is not None and record.files is not None:
            stage = f"{note['stage']}-{note['label']}".rstrip("-")
            made = digests_of(store.local_path(record.files))
            found |= {f"{stage}/{name}": digest for name, digest in made.items()}
    return found


def digests_of(files: Path) -> dict[str, str]:
    """Digests of what a stage or a job made, without what tells seconds."""
    found: dict[str, str] = {}
    for name in ("posterior.parquet", "scores.json", "examples.jsonl", "prompts.parquet", "rollouts.parquet"):
        if (files / name).exists():
            found[name] = digest_file(files / name)
    for name in ("checkpoint", "policy"):
        if (files / name).exists():
            found[name] = digest_folder(files / name)
    for items in files.glob("items-*.parquet"):
        found[items.name] = digest_file(items)
    return found
