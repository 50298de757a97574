"""An epoch small enough for tests, run as the stage runs it: a job in a process (or several) of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from cures_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from cures_core.config.policy import WarmStartPolicy
from cures_core.config.run import RunConfig
from cures_core.curriculum import Posterior, save_posterior
from cures_core.jobs.spec import Job
from cures_core.policy.characters import character_model, character_tokenizer
from cures_core.policy.loading import Policy, save_policy
from cures_core.prompts import PromptSet
from cures_core.terms import Prompt


def make_job(folder: Path, training: dict[str, Any], steps: int = 4, **options: Any) -> Job:
    """A job on a random policy in `folder`; its scratch is `folder`/scratch."""
    cfg = RunConfig.model_validate(
        {
            "name": "tiny",
            "seed": 3,
            "steps_per_epoch": steps,
            "data": {"path": "unused"},
            "rollout": {"type": "hf", "max_new_tokens": 4, "temperature": 1.0},
            "reward": {"type": "custom", "function": "tests.own_verifiers:has_a_low_digit"},
            "curriculum": {"type": "uniform", "prompts_per_step": 6, "rollouts_per_step": 36},
            "training": {"learning_rate": 1e-3, "solved_advantage": 1.0, **training},
            "device": {"type": "cpu"},
            **options,
        }
    )
    prompts = PromptSet.of(Prompt(f"prompt-{i}", f"{i % 10}+{i // 10}=", "") for i in range(40))
    folder.mkdir(parents=True, exist_ok=True)
    prompts.write_parquet(folder / "prompts.parquet")
    save_posterior(Posterior.fresh(prompts, cfg.curriculum.posterior), folder / "posterior.parquet")
    torch.manual_seed(0)
    tokenizer = character_tokenizer()
    model = character_model(WarmStartPolicy(hidden_size=32, layers=2, heads=2), tokenizer)
    save_policy(Policy(model, tokenizer, torch.device("cpu")), folder / "policy")
    return Job(
        name="epoch",
        config=cfg,
        scratch=folder / "scratch",
        out=folder / "out",
        epoch=1,
        policy=str(folder / "policy"),
        prompts=folder / "prompts.parquet",
        posterior=folder / "posterior.parquet",
    )


def outcome(job: Job) -> tuple[Checkpoint, dict[str, Any]]:
    """What the job has made: its checkpoint and its figures."""
    return load_checkpoint(job.out / "checkpoint"), json.loads((job.out / "figures.json").read_bytes())
