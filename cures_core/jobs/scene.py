"""What the errors of a job can say: where it was, how to go on, and which setting would need less memory."""

from __future__ import annotations

from cures_core.config.policy import PretrainedPolicy, WarmStartPolicy
from cures_core.config.run import RunConfig
from cures_core.failures import Scene
from cures_core.jobs.spec import Job

GO_ON = "go on with: cures run --resume RUN"


def scene_of(job: Job) -> Scene:
    """For messages of the job's own process, and of its parent about it."""
    what = f"{job.name} {job.epoch}" if job.name == "epoch" else job.name
    return Scene(what, str(job.scratch), GO_ON, less_memory=_less_memory(job), log=job.scratch / "job.log")


def _less_memory(job: Job) -> str:
    cfg = job.config
    if job.name == "warm_start" and isinstance(cfg.policy, PretrainedPolicy) and cfg.policy.warm_start is not None:
        now = cfg.policy.warm_start.micro_batch_tokens
        return f"cures run --resume RUN --set policy.warm_start.micro_batch_tokens={max(64, now // 2)} (now {now})"
    if job.name == "warm_start":
        batch = cfg.policy.batch if isinstance(cfg.policy, WarmStartPolicy) else 1
        return f"start a run with --set policy.batch={max(1, batch // 2)} (now {batch}) or a smaller policy.hidden_size"
    wanted = [_smaller_engine(cfg)]
    if job.name in ("epoch", "measure"):
        now = cfg.training.micro_batch_tokens
        wanted.insert(0, f"--set training.micro_batch_tokens={max(64, now // 2)} (updates; now {now})")
    return f"cures run --resume RUN {' or '.join(wanted)}"


def _smaller_engine(cfg: RunConfig) -> str:
    if cfg.rollout.type == "hf":
        now = cfg.rollout.batch_rows
        return f"--set rollout.batch_rows={max(1, now // 2)} (completions; now {now})"
    now = cfg.rollout.kv_cache_gib
    return f"--set rollout.kv_cache_gib={max(1, now // 2)} (vLLM's cache; now {now})"
