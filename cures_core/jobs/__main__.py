"""`python -m cures_core.jobs JOB.json`: run one job; the exit code is the error's, its text is in error.json."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import sys
from pathlib import Path

from cures_core.config.curriculum import CustomConfig
from cures_core.config.training import RanksConfig
from cures_core.failure_report import run_reporting
from cures_core.failures import Scene, explaining
from cures_core.jobs.launch import Ranks
from cures_core.jobs.parent import Parent
from cures_core.jobs.scene import scene_of
from cures_core.jobs.spec import Job
from cures_core.process_end import end_soon
from cures_core.secrets import mask_logs


def main(spec: Path) -> int:
    """Do the job of the file `spec` in this process; returns its exit code."""
    end_soon()
    mask_logs()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    parent = Parent(spec)
    return run_reporting(lambda: _work(spec, parent), spec.with_name("error.json"), Scene(f"the job in {spec}"))


def _work(spec: Path, parent: Parent) -> None:
    job = Job.model_validate_json(spec.read_bytes())
    with explaining(scene_of(job)):
        shutil.rmtree(job.out, ignore_errors=True)
        job.out.mkdir(parents=True)
        job.scratch.mkdir(parents=True, exist_ok=True)
        if isinstance(job.config.curriculum, CustomConfig) and job.name != "evaluate":
            from cures_core.curriculum.strategies.custom import check_strategy

            check_strategy(job.config.curriculum)  # before any work, not in the epoch that is the first to need it
        training = job.config.training
        if job.name == "epoch" and isinstance(training, RanksConfig):
            _run_ranks(spec, job, training, parent)
        else:
            importlib.import_module(f"cures_core.jobs.{job.name}").run(job, parent)


def _run_ranks(spec: Path, job: Job, training: RanksConfig, parent: Parent) -> None:
    on_gpu = job.config.device.type != "cpu"
    ranks = Ranks(training, 0, job.scratch / "ranks", on_gpu=on_gpu, rank_0=(spec, parent.events))
    try:
        error = ranks.wait(lambda: parent.stop_requested)
    finally:
        ranks.kill()
    if error is not None:
        raise error


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
