"""Job: time a few rollouts and updates with a profile's own policy, for `cures plan --measure`. Trains nothing that is
kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice

from cures_core.config.training import TorchTrainerConfig, TrainerOptions, TrainingConfig
from cures_core.epoch import roll_out
from cures_core.errors import ConfigError
from cures_core.files import canonical_json, write_atomic
from cures_core.jobs.assemble import assemble_engine, assemble_policy, assemble_reference, assemble_verifier
from cures_core.jobs.parent import Parent
from cures_core.jobs.spec import Job
from cures_core.peak_memory import peak_bytes
from cures_core.prompts import PromptSet
from cures_core.terms import Group, Outcome, Prompt, Request, Verdict
from cures_core.training.torch_trainer import TorchTrainer

_MIN_STEPS, _MAX_STEPS, _ENOUGH_S = 2, 20, 10.0


def run(job: Job, parent: Parent) -> None:
    """Write `figures.json`: seconds and completion tokens of one rollout in a step and in an evaluation, seconds of an
    update a rollout, seconds in all, and bytes: of the process before there is a policy, at its peak, and what torch
    held at most on a GPU.

    Verdicts alternate, so that every group has something to teach: an untrained policy would make no update at all.
    """
    if job.prompts is None:
        raise ConfigError("a measurement needs prompts")
    import torch
    import transformers.modeling_utils  # noqa: F401  # what every job imports is no part of the figures

    cfg, started, before = job.config, time.monotonic(), peak_bytes()
    policy = assemble_policy(job, None)
    temperature = cfg.rollout.temperature or 1.0
    trainer = TorchTrainer(policy, _one_process(cfg.training), temperature, assemble_reference(job))
    prompts = PromptSet.read_parquet(job.prompts)
    num = min(cfg.curriculum.prompts_per_step, len(prompts))
    each = max(2, cfg.curriculum.rollouts_per_step // cfg.curriculum.prompts_per_step)
    chunks = _chunks(prompts, num)
    made = tokens = 0
    generating = updating = 0.0
    with assemble_verifier(cfg) as verifier, closing(assemble_engine(policy, cfg.rollout, trainer.model)) as engine:
        begun = time.monotonic()
        for step in range(_MAX_STEPS + 1):
            at = time.monotonic()
            groups = roll_out(_requests(next(chunks), each, step), engine, verifier)
            done = time.monotonic()
            engine.sleep()
            trainer.update([_taught(group) for group in groups])
            engine.sync(trainer.model)
            if step:  # the first one makes the optimizer's states, and warms up
                made += sum(len(g.rollouts) for g in groups)
                tokens += sum(len(r.token_ids) for g in groups for r in g.rollouts)
                generating += done - at
                updating += time.monotonic() - done
            if step >= _MIN_STEPS and time.monotonic() - begun > _ENOUGH_S:
                break
        at = time.monotonic()
        chunk = next(_chunks(prompts, min(cfg.evaluation.chunk_prompts, len(prompts))))
        samples = max((suite.samples for suite in cfg.evaluation.suites), default=1)
        scored = roll_out(_requests(chunk, samples, 0), engine, verifier)
        scoring = time.monotonic() - at
    figures = {
        "rollouts": made,
        "tokens_per_rollout": tokens / made,
        "generation_s_per_rollout": generating / made,
        "update_s_per_rollout": updating / made,
        "evaluation_s_per_rollout": scoring / sum(len(g.rollouts) for g in scored),
        "seconds": time.monotonic() - started,
        "process_before": before,
        "process_peak": peak_bytes(),
        "gpu_peak": torch.cuda.max_memory_allocated() if policy.device.type == "cuda" else 0,
    }
    write_atomic(job.out / "figures.json", canonical_json(figures))


def _one_process(cfg: TrainingConfig) -> TorchTrainerConfig:
    """The same update by the trainer of one process."""
    common = set(TrainerOptions.model_fields)
    return TorchTrainerConfig(**cfg.model_dump(include=common))


def _chunks(prompts: PromptSet, num: int) -> Iterator[Sequence[Prompt]]:
    """`num` prompts at a time, round and round."""
    rows = (i % len(prompts) for i in range(sys.maxsize))
    while True:
        yield [prompts[i] for i in islice(rows, num)]


def _requests(prompts: Sequence[Prompt], each: int, seed: int) -> list[Request]:
    return [Request(f"measure-{i}", prompt, each, seed) for i, prompt in enumerate(prompts)]


def _taught(group: Group) -> Group:
    outcomes = (Outcome.CORRECT, Outcome.WRONG)
    return replace(group, verdicts=[Verdict(outcomes[i % 2]) for i in range(len(group.rollouts))])
