"""A run with a real job, without Prefect. Usage: python -m tests.tasks.stages.warm_starts FOLDER."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cures_core.config.policy import WarmStartPolicy
from cures_core.errors import CuresError
from cures_core.jobs.spec import Job
from tasks.runs.opening import open_run
from tasks.runs.records import Record, RunRef
from tasks.stages.job_process import run_job
from tasks.stages.stage import run_stage
from tasks.stages.workspace import Workspace
from tests.tasks.stages.starts import config_in


def warm_start_stage(run: RunRef, steps: int) -> Record:
    """The policy of the run, by its job."""
    policy = WarmStartPolicy(hidden_size=32, layers=1, heads=2, steps=steps, batch=32, checkpoint_every=5)
    config = run.config.model_copy(update={"policy": policy})

    def work(space: Workspace) -> Mapping[str, Any]:
        run_job(Job(name="warm_start", config=config, scratch=space.scratch, out=space.out))
        figures: dict[str, Any] = json.loads((space.out / "figures.json").read_bytes())
        return figures

    return run_stage(run, "prepare_policy", 1, {"steps": "as many as asked"}, [], work)


if __name__ == "__main__":
    try:
        with open_run(config_in(Path(sys.argv[1]), 1e-4, ttl_s=3)) as ref:
            warm_start_stage(ref, steps=1_000_000)
    except CuresError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
