"""Stage: the policy that training starts from: a warm start, cached by its settings, or a pretrained model's folder."""

from __future__ import annotations

from pathlib import Path

from cures_core.config.policy import PretrainedPolicy, SupervisedWarmStart
from cures_core.config.run import RunConfig
from cures_core.errors import TryAgain
from cures_core.files import digest_folder
from cures_core.jobs.spec import Job
from cures_core.own_code import keyed
from cures_core.policy.accounting import require_whole
from cures_core.policy.adapters import holds_adapters
from cures_core.policy.warm_start import RECIPE
from cures_core.prompts.lines import Snapshot
from tasks.inputs.digests import DATA, SOLUTIONS, policy_files
from tasks.inputs.pretrained import base_folder, policy_digest, pretrained_folder
from tasks.inputs.prompt_files import Inputs
from tasks.runs.figures import PolicyFigures, ValidateFigures
from tasks.runs.records import Record, RunRef, files_of
from tasks.stages.job_process import run_job
from tasks.stages.keys import WARM_START, settings
from tasks.stages.stage import Made, as_stage, read_made, run_stage
from tasks.stages.workspace import Workspace
from tasks.storage import Store, open_store

SCHEMA = 2


@as_stage()
def prepare_policy(run: RunRef, data: Record[ValidateFigures] | None = None) -> Record[PolicyFigures]:
    """Files: policy/ and warm_start.jsonl, where there is a warm start. A pretrained policy is refused here where it is
    not whole. `data`: its suites are kept out of what is taught."""
    cfg = run.config
    if isinstance(cfg.policy, PretrainedPolicy):
        if cfg.policy.warm_start is not None:
            return _taught(run, cfg.policy, cfg.policy.warm_start, data)
        policy, digest = cfg.policy, policy_digest(policy_files(run.inputs))

        def accounted(_: Workspace) -> Made[PolicyFigures]:
            require_whole(pretrained_folder(policy), base_folder(policy))
            return Made(PolicyFigures(digest=digest))

        if policy.adapters == "merge" and holds_adapters(policy.path):
            return _merged(run, policy, digest)
        return run_stage(run, PolicyFigures, SCHEMA, {"digest": digest}, [], accounted)

    def work(space: Workspace) -> Made[PolicyFigures]:
        run_job(Job(name="warm_start", config=cfg, scratch=space.scratch, out=space.out))
        return read_made(PolicyFigures, space.out, digest=digest_folder(space.out / "policy"))

    inputs = {"settings": settings(cfg, "prepare_policy"), "recipe": RECIPE}
    return run_stage(run, PolicyFigures, SCHEMA, inputs, [], work)


def _merged(run: RunRef, policy: PretrainedPolicy, digest: str) -> Record[PolicyFigures]:
    """Adapters as part of their base model's weights. Files: policy/."""
    cfg = run.config

    def work(space: Workspace) -> Made[PolicyFigures]:
        folder = pretrained_folder(policy)
        require_whole(folder, base_folder(policy))
        run_job(Job(name="warm_start", config=cfg, scratch=space.scratch, out=space.out, policy=str(folder)))
        return read_made(PolicyFigures, space.out, digest=digest_folder(space.out / "policy"))

    read = {setting: value for setting, value in keyed(policy).items() if setting != "type"}  # `merged` says it
    inputs = {"digest": digest, "merged": True, **read}
    return run_stage(run, PolicyFigures, SCHEMA, inputs, [], work)


def _taught(
    run: RunRef, policy: PretrainedPolicy, warm_start: SupervisedWarmStart, data: Record[ValidateFigures] | None
) -> Record[PolicyFigures]:
    """A pretrained policy that learns worked solutions first."""
    cfg = run.config
    field, name = (DATA, cfg.data.path) if warm_start.path is None else (SOLUTIONS, warm_start.path)
    digest = run.inputs.get(field, "")
    inputs = {
        "digest": policy_digest(policy_files(run.inputs)),
        "settings": keyed(cfg, WARM_START),
        "solutions": digest,
        "suites": {} if data is None else data.figures.suites,
    }

    def work(space: Workspace) -> Made[PolicyFigures]:
        folder = pretrained_folder(policy)
        require_whole(folder, base_folder(policy))
        solutions = Inputs.of(cfg, {name: digest}).local(name)
        if Snapshot.of(solutions).digest != digest:
            raise TryAgain(f"{name}: has changed since the run was started; start it again")
        job = Job(
            name="warm_start",
            config=cfg,
            scratch=space.scratch,
            out=space.out,
            policy=str(folder),
            solutions=solutions,
            suites=None if data is None else files_of(open_store(cfg.store), data) / "suites",
        )
        run_job(job)
        return read_made(PolicyFigures, space.out, digest=digest_folder(space.out / "policy"))

    return run_stage(run, PolicyFigures, SCHEMA, inputs, [] if data is None else [data], work)


def policy_folder(run: RunRef, record: Record[PolicyFigures]) -> Path:
    """Where the base policy lies on this machine."""
    return base_policy(open_store(run.config.store), run.config, record)


def base_policy(store: Store, cfg: RunConfig, record: Record[PolicyFigures]) -> Path:
    """Where a run's base policy lies: in the store where a stage has made it, else where the user has it."""
    if isinstance(cfg.policy, PretrainedPolicy) and record.files is None:
        return pretrained_folder(cfg.policy)
    return files_of(store, record) / "policy"
