"""`python -m cures_core.jobs JOB.json`: run one job; the exit code is the error's, its text is in error.json."""

from __future__ import annotations

import importlib
import logging
import os
import shutil
import sys
from pathlib import Path

from cures_core.config.training import RanksConfig
from cures_core.errors import CuresError
from cures_core.files import canonical_json, write_atomic
from cures_core.jobs.launch import Ranks
from cures_core.jobs.parent import Parent
from cures_core.jobs.spec import Job


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    parent = Parent()
    job = Job.model_validate_json(Path(sys.argv[1]).read_bytes())
    shutil.rmtree(job.out, ignore_errors=True)
    job.out.mkdir(parents=True)
    job.scratch.mkdir(parents=True, exist_ok=True)
    training = job.config.training
    if job.name == "epoch" and isinstance(training, RanksConfig):
        return _run_ranks(job, training, parent)
    try:
        importlib.import_module(f"cures_core.jobs.{job.name}").run(job, parent)
    except CuresError as error:
        logging.getLogger("cures").exception("job failed")
        return _report(job, type(error).__name__, str(error), error.exit_code)
    except OSError as error:  # disk full, files gone: the parent explains it without a traceback
        logging.getLogger("cures").exception("job failed")
        return _report(job, "StoreUnavailable", f"{error}; make room or fix the path, then resume", 1)
    return 0


def _run_ranks(job: Job, training: RanksConfig, parent: Parent) -> int:
    on_gpu = job.config.device.type != "cpu"
    rank_0 = (Path(sys.argv[1]), parent.events)
    ranks = Ranks(training, 0, job.scratch / "ranks", on_gpu=on_gpu, rank_0=rank_0)
    try:
        code, error = ranks.wait(lambda: parent.stop_requested)
    finally:
        ranks.kill()
    return code if error is None else _report(job, error["class"], error["message"], code)


def _report(job: Job, kind: str, message: str, exit_code: int) -> int:
    write_atomic(job.scratch / "error.json", canonical_json({"class": kind, "message": message}))
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
