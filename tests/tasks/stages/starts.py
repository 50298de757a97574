"""Runs in processes of their own that share a stage, without Prefect: a store, four learning rates, one policy to make.

Usage: python -m tests.tasks.stages.starts ROOT STARTS: each start is a folder of ROOT in which four runs begin at once.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from cures_core.config.run import RunConfig
from tasks.runs.figures import EpochFigures, PolicyFigures
from tasks.runs.opening import open_run
from tasks.runs.records import RunRef
from tasks.stages import stage
from tasks.stages.stage import Made, run_stage
from tasks.stages.workspace import Workspace
from tests.tasks.stages.figures import made

RUNS = 4


def config_in(folder: Path, rate: float, ttl_s: float = 60.0) -> RunConfig:
    """A run of one prompt, told from others by its learning rate."""
    data = folder / "set.jsonl"
    if not data.exists():
        data.write_text('{"problem": "1+1", "answer": "2"}\n')
    settings = {
        "data": {"path": str(data)},
        "rollout": {"max_new_tokens": 8},
        "training": {"learning_rate": rate},
        "store": {"url": str(folder / "store"), "lease_ttl_s": ttl_s},
    }
    return RunConfig.model_validate(settings)


def note(folder: Path, what: str) -> None:
    """Note something in the order in which it happens, whoever it happens to."""
    with (folder / "log").open("a") as f:
        f.write(f"{what}\n")


def shared(run: RunRef, folder: Path, seconds: float = 0.05) -> None:
    """A stage that all runs need, which goes on from what it finds; two at once in one folder would be an error."""

    def work(space: Workspace) -> Made[Any]:
        for path in space.scratch.glob("at-work-*"):  # of a holder before
            path.unlink()
        (space.scratch / f"at-work-{os.getpid()}").touch(exist_ok=False)
        note(folder, "shared")
        time.sleep(seconds)
        alone = [path.name for path in space.scratch.glob("at-work-*")]
        assert alone == [f"at-work-{os.getpid()}"], alone
        (space.out / "made.txt").write_text("made")
        return made("prepare_policy", str(os.getpid()))

    run_stage(run, PolicyFigures, 1, {"same": "for all"}, [], work)


def own(run: RunRef, folder: Path) -> None:
    """A stage of this run alone."""

    def work(space: Workspace) -> Made[Any]:
        note(folder, "own")
        (space.out / "made.txt").write_text(str(run.config.training.learning_rate))
        return made("train_epoch")

    run_stage(run, EpochFigures, 1, {"rate": run.config.training.learning_rate}, [], work, label="1")


def start(folder: Path) -> bool:
    """Four runs at once; did all end well?"""
    folder.mkdir(parents=True)
    configs = [config_in(folder, (1 + i) * 1e-4) for i in range(RUNS)]
    children = []
    for config in configs:
        if (pid := os.fork()) == 0:
            code = 1
            try:
                with open_run(config) as run:
                    shared(run, folder)
                    own(run, folder)
                code = 0
            except BaseException as error:
                note(folder, f"failed: {type(error).__name__}: {error}")
            finally:
                os._exit(code)
        children.append(pid)
    return [os.waitpid(pid, 0)[1] for pid in children] == [0] * RUNS


if __name__ == "__main__":
    stage._POLL_S = 0.05
    ended = [start(Path(sys.argv[1]) / str(i)) for i in range(int(sys.argv[2]))]
    sys.exit(not all(ended))
