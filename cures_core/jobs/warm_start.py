"""Job: make the policy that training starts from: a small one, or a pretrained one that has learnt worked solutions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from cures_core.config.policy import PretrainedPolicy, SupervisedWarmStart, WarmStartPolicy, dtype_of
from cures_core.errors import ConfigError
from cures_core.events import PartDone
from cures_core.faults import fault_point
from cures_core.files import canonical_json, write_atomic
from cures_core.jobs.parent import Parent
from cures_core.jobs.spec import Job
from cures_core.machine import machine_of
from cures_core.policy.adapters import base_name, holds_adapters
from cures_core.policy.loading import (
    device_of,
    fresh_adapters,
    load_policy,
    load_tokenizer,
    on_device,
    save_policy,
    setup_torch,
    tokenizer_place,
)
from cures_core.policy.solutions import read_lessons
from cures_core.policy.warm_start import warm_start
from cures_core.prompts import PromptSet
from cures_core.rollout.room import context_of
from cures_core.training.supervised import OnStep, Row

_log = logging.getLogger(__name__)
STEPS = "warm_start.jsonl"


def run(job: Job, parent: Parent) -> None:
    """Write `policy/` (Hugging Face format), `warm_start.jsonl` (figures of every step) and `figures.json` to
    `job.out`."""
    cfg = job.config.policy
    rows: Sequence[Row]
    figures: dict[str, object]
    if isinstance(cfg, WarmStartPolicy):
        on_step = _telling(parent, cfg.steps, cfg.checkpoint_every)
        rows = warm_start(cfg, job.config.device, job.scratch, job.out / "policy", on_step)
        figures = {"steps": float(cfg.steps)}
    elif cfg.warm_start is not None:
        rows, figures = _supervised(job, cfg, cfg.warm_start, parent)
    elif holds_adapters(job.policy):
        rows, figures = _merged(job, cfg), {}
    else:
        raise ConfigError("a warm start needs policy.type = 'warm-start', or policy.warm_start")
    machine = machine_of(device_of(job.config.device), dtype_of(cfg))
    if rows:
        write_atomic(job.out / STEPS, b"".join(canonical_json(row) + b"\n" for row in rows))
        figures["loss"] = rows[-1]["loss"]
    figures["machine"] = machine
    write_atomic(job.out / "figures.json", canonical_json(figures))


def _merged(job: Job, cfg: PretrainedPolicy) -> Sequence[Row]:
    """Adapters become part of their base model's weights; nothing is learnt."""
    device = setup_torch(job.config.device, 0)
    save_policy(load_policy(job.policy, device, dtype=cfg.dtype, base=cfg.base), job.out / "policy")
    return ()


def _supervised(
    job: Job, policy_cfg: PretrainedPolicy, cfg: SupervisedWarmStart, parent: Parent
) -> tuple[Sequence[Row], dict[str, object]]:
    """All rows are read and judged before the model is loaded."""
    from cures_core.planning.shape import model_config, read_architecture
    from cures_core.policy.supervised import planned_steps, supervised_warm_start

    if job.solutions is None:
        raise ConfigError("a supervised warm start needs the rows with solutions")
    revision = None if Path(job.policy).exists() else policy_cfg.revision
    tokenizer = load_tokenizer(tokenizer_place(job.policy, policy_cfg.base), revision)
    suites = (
        {} if job.suites is None else {p.stem: PromptSet.read_parquet(p) for p in sorted(job.suites.glob("*.parquet"))}
    )
    whole = base_name(Path(job.policy), policy_cfg.base) if holds_adapters(job.policy) else job.policy
    context = context_of(model_config(read_architecture(Path(whole))))
    longest = None if context is None else context.tokens
    fmt = job.config.rollout.prompt_format
    lessons = read_lessons(cfg, job.solutions, tokenizer, fmt, longest, suites)
    for line in lessons.told():
        _log.warning("%s: %s", job.solutions, line)
    device = setup_torch(job.config.device, cfg.seed)
    policy = load_policy(job.policy, device, dtype=policy_cfg.dtype, revision=revision, base=policy_cfg.base)
    if cfg.lora is not None:  # adapters that it has already are merged by now
        policy = on_device(fresh_adapters(policy, cfg.lora))
    steps = len(planned_steps(cfg, lessons.taught))
    rows = supervised_warm_start(
        cfg, policy, lessons.taught, job.scratch, _telling(parent, steps, cfg.checkpoint_every)
    )
    save_policy(policy, job.out / "policy")
    return rows, {
        "steps": float(steps),
        "tokens": sum(row["tokens"] for row in rows),
        "rows": lessons.rows,
        "taught": len(lessons.taught),
        "left_out": dict(lessons.left_out),
    }


def _telling(parent: Parent, steps: int, checkpoint_every: int) -> OnStep:
    """Say how far it is, and stop where everything is saved if asked to."""

    def on_step(step: int, loss: float) -> None:
        fault_point("warm_start.step", str(step))
        if step % 10 == 0 or step == steps:
            parent.emit(PartDone(part="warm_start", done=step, total=steps))
        if step % checkpoint_every == 1 or checkpoint_every == 1:
            parent.stop_if_asked(f"the warm start's last checkpoint before step {step}")

    return on_step
