"""Stage: the policy that training starts from: a warm start, cached by its settings, or a pretrained model's folder."""

from __future__ import annotations

from pathlib import Path

from cures_core.config.policy import PretrainedPolicy
from cures_core.files import digest_folder
from cures_core.jobs.spec import Job
from cures_core.policy.accounting import require_whole
from tasks.inputs.digests import policy_files
from tasks.inputs.pretrained import policy_digest, pretrained_folder
from tasks.runs.figures import PolicyFigures
from tasks.runs.records import Record, RunRef, files_of
from tasks.stages.job_process import run_job
from tasks.stages.keys import settings
from tasks.stages.stage import Made, as_stage, read_made, run_stage
from tasks.stages.workspace import Workspace
from tasks.storage import open_store

SCHEMA = 2


@as_stage()
def prepare_policy(run: RunRef) -> Record[PolicyFigures]:
    """Files: policy/ (warm start only). A pretrained one is refused here where it is not whole."""
    cfg = run.config
    if isinstance(cfg.policy, PretrainedPolicy):
        policy, digest = cfg.policy, policy_digest(policy_files(run.inputs))

        def accounted(_: Workspace) -> Made[PolicyFigures]:
            require_whole(pretrained_folder(policy))
            return Made(PolicyFigures(digest=digest))

        return run_stage(run, PolicyFigures, SCHEMA, {"digest": digest}, [], accounted)

    def work(space: Workspace) -> Made[PolicyFigures]:
        run_job(Job(name="warm_start", config=cfg, scratch=space.scratch, out=space.out))
        return read_made(PolicyFigures, space.out, digest=digest_folder(space.out / "policy"))

    return run_stage(run, PolicyFigures, SCHEMA, {"settings": settings(cfg, "prepare_policy")}, [], work)


def policy_folder(run: RunRef, record: Record[PolicyFigures]) -> Path:
    """Where the base policy lies on this machine."""
    if isinstance(run.config.policy, PretrainedPolicy):
        return pretrained_folder(run.config.policy)
    return files_of(open_store(run.config.store), record) / "policy"
