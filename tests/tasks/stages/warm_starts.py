"""A run with a real job, without Prefect. Usage: python -m tests.tasks.stages.warm_starts FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from cures_core.config.policy import WarmStartPolicy
from cures_core.errors import CuresError
from cures_core.jobs.spec import Job
from tasks.runs.figures import PolicyFigures
from tasks.runs.opening import open_run
from tasks.runs.records import Record, RunRef
from tasks.stages.job_process import run_job
from tasks.stages.stage import Made, read_made, run_stage
from tasks.stages.workspace import Workspace
from tests.tasks.stages.starts import config_in


def warm_start_stage(run: RunRef, steps: int) -> Record[PolicyFigures]:
    """The policy of the run, by its job."""
    policy = WarmStartPolicy(hidden_size=32, layers=1, heads=2, steps=steps, batch=32, checkpoint_every=5)
    config = run.config.model_copy(update={"policy": policy})

    def work(space: Workspace) -> Made[PolicyFigures]:
        run_job(Job(name="warm_start", config=config, scratch=space.scratch, out=space.out))
        return read_made(PolicyFigures, space.out, digest="d")

    return run_stage(run, PolicyFigures, 1, {"steps": "as many as asked"}, [], work)


if __name__ == "__main__":
    try:
        with open_run(config_in(Path(sys.argv[1]), 1e-4, ttl_s=3)) as ref:
            warm_start_stage(ref, steps=1_000_000)
    except CuresError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
