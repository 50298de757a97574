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


_ALL_AT_LEAST = (
    "give the process more memory, for every setting that could spare some is at its least, or start a run with a "
    "smaller model or rollout.max_new_tokens"
)


def _less_memory(job: Job) -> str:
    """What to type. A setting that is at its least is not proposed."""
    cfg = job.config
    if job.name == "warm_start" and isinstance(cfg.policy, WarmStartPolicy):
        smaller = _halved("policy.batch", cfg.policy.batch, 1)
        return f"start a run with {smaller or 'a smaller policy.layers'} or a smaller policy.hidden_size"
    if job.name == "warm_start" and isinstance(cfg.policy, PretrainedPolicy) and cfg.policy.warm_start is not None:
        wanted = [_halved("policy.warm_start.micro_batch_tokens", cfg.policy.warm_start.micro_batch_tokens, 64)]
    else:
        wanted = [_smaller_engine(cfg)]
        if job.name in ("epoch", "measure"):
            wanted.insert(0, _halved("training.micro_batch_tokens", cfg.training.micro_batch_tokens, 64, "updates"))
    smaller = " or ".join(filter(None, wanted))
    return f"cures run --resume RUN {smaller}" if smaller else _ALL_AT_LEAST


def _smaller_engine(cfg: RunConfig) -> str:
    rollout = cfg.rollout
    if rollout.type == "hf":
        return _halved("rollout.batch_rows", rollout.batch_rows, 1, "completions")
    return _halved("rollout.kv_cache_gib", rollout.kv_cache_gib, 1, "vLLM's cache")  # with endpoints it is 1


def _halved(setting: str, now: int, least: int, use: str = "") -> str:
    if now <= least:
        return ""
    return f"--set {setting}={max(least, now // 2)} ({use + '; ' if use else ''}now {now})"
