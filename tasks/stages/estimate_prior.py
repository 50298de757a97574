"""Stage: posterior 0, from a budgeted sample of rollouts of the base policy."""

from __future__ import annotations

from cures_core.files import digest_file, write_atomic
from cures_core.jobs.spec import Job
from tasks.runs.figures import PolicyFigures, PriorFigures, ValidateFigures
from tasks.runs.records import Record, RunRef, files_of
from tasks.snapshots import find_snapshot, read_snapshot
from tasks.stages.job_process import run_job
from tasks.stages.keys import settings
from tasks.stages.prepare_policy import policy_folder
from tasks.stages.stage import Made, as_stage, read_made, run_stage
from tasks.stages.workspace import Workspace
from tasks.storage import open_store


@as_stage()
def estimate_prior(run: RunRef, data: Record[ValidateFigures], policy: Record[PolicyFigures]) -> Record[PriorFigures]:
    """Files: posterior.parquet."""
    cfg = run.config
    start_from = cfg.prior.start_from
    places = cfg.snapshot.within(cfg.store.url, cfg.store.endpoint_url) if start_from else cfg.snapshot
    inputs = {
        "settings": settings(cfg, "estimate_prior"),
        "prompts": data.figures.digest,
        "policy": policy.figures.digest,
        "earlier": find_snapshot(start_from, places).md5 if start_from else "",
    }

    def work(space: Workspace) -> Made[PriorFigures]:
        earlier = space.scratch / "earlier.parquet" if start_from else None
        if start_from and earlier:
            write_atomic(earlier, read_snapshot(start_from, places))
        job = Job(
            name="prior",
            config=cfg,
            scratch=space.scratch,
            out=space.out,
            policy=str(policy_folder(run, policy)),
            prompts=files_of(open_store(cfg.store), data) / "prompts.parquet",
            posterior=earlier,
        )
        run_job(job)
        return read_made(PriorFigures, space.out, posterior_digest=digest_file(space.out / "posterior.parquet"))

    return run_stage(run, PriorFigures, 4, inputs, [data, policy], work)
