"""Runs the arms of `python -m benchmarks step` in turn, each in a process of its own, and compares them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import ValidationError

from benchmarks.step.training_step import ARMS, Figures, StepSpec, need_trl
from cures_core.countdown import Countdown
from cures_core.errors import ChildFailed, ConfigError
from cures_core.files import canonical_json, write_atomic
from cures_core.jobs.assemble import versions

PER_TOKEN = ("total_s", "generation_s", "training_s", "cpu_s")


def compare_steps(peer: str, repeats: int, **spec: Any) -> dict[str, Any]:
    """Medians of `repeats` runs of each arm, in turn, and ours over the peer's.

    Raises `ConfigError` for another peer than trl, `MissingExtra` where that is not installed, `ChildFailed` with an
    arm's last lines.
    """
    if peer != "trl":
        raise ConfigError(f"--peer {peer}: the one that there is is trl")
    need_trl()
    named = spec.pop("model")
    with tempfile.TemporaryDirectory(prefix="cures-bench-") as name:
        folder = Path(name)
        try:
            settings = StepSpec(model=named or str(_made_up(folder / "model")), **spec)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"--{first['loc'][0]} {first['input']}: {first['msg']}") from error
        runs: dict[str, list[Figures]] = {arm: [] for arm in ARMS}
        countdown = Countdown("arms", repeats * len(ARMS))
        for number in range(repeats):
            # Every other round the other way round: neither arm always has the quieter machine.
            for arm in list(ARMS)[:: 1 if number % 2 == 0 else -1]:
                runs[arm].append(_run(arm, settings, folder))
                countdown.done(arm)
    middle = {arm: _medians(figures) for arm, figures in runs.items()}
    return {
        **middle,
        "ratio": _ratios(middle["cures"], middle[peer]),
        "spec": {**settings.model_dump(), "model": named or "random Llama"},
        "repeats": repeats,
        "versions": {**versions(), peer: version(peer)},
    }


def _made_up(folder: Path) -> Path:
    from cures_core.rollout.throughput import made_up_model

    model, tokenizer = made_up_model()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _run(arm: str, spec: StepSpec, folder: Path) -> Figures:
    spec_file, out = folder / "spec.json", folder / f"{arm}.json"
    write_atomic(spec_file, canonical_json(spec.model_dump(mode="json")))
    command = [sys.executable, "-m", "benchmarks.step.training_step", arm, str(spec_file), str(out)]
    threads = {name: str(spec.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = {**os.environ, **threads, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if child.returncode:
        raise ChildFailed(f"arm {arm} ended with {child.returncode}: " + " | ".join(child.stderr.splitlines()[-5:]))
    return Figures.model_validate_json(out.read_bytes())


def _medians(figures: list[Figures]) -> dict[str, float]:
    rows = [f.model_dump(exclude={"kernels"}) for f in figures]
    return {name: round(median(row[name] for row in rows), 3) for name in rows[0]}


def _ratios(ours: dict[str, float], peers: dict[str, float]) -> dict[str, float]:
    """Ours over the peer's. Completions are sampled, so seconds are also compared for each token made."""
    found = {name: ours[name] / peers[name] for name in (*PER_TOKEN, "tokens", "tokens_per_s", "peak_mib")}
    found |= {f"{name}_per_token": found[name] / found["tokens"] for name in PER_TOKEN}
    return {name: round(value, 3) for name, value in found.items()}
