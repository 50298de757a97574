"""A prior and two short epochs of a small random policy, through the jobs of a real run."""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch

from cures_core.config.policy import WarmStartPolicy
from cures_core.config.run import RunConfig
from cures_core.curriculum import load_posterior
from cures_core.events import JobEvent
from cures_core.jobs import epoch, prior
from cures_core.jobs.parent import Parent
from cures_core.jobs.spec import Job
from cures_core.policy.characters import character_model, character_tokenizer
from cures_core.policy.loading import Policy, save_policy
from cures_core.prompts import PromptSet
from cures_core.terms import Prompt

CONFIG: dict[str, Any] = {
    "name": "recorded",
    "seed": 3,
    "epochs": 2,
    "steps_per_epoch": 4,
    "checkpoint_every": 2,
    "data": {"path": "unused"},
    "rollout": {"type": "hf", "max_new_tokens": 4, "temperature": 1.0},
    "reward": {"type": "custom", "function": "tests.own_verifiers:judged_now_and_then"},
    "prior": {"type": "sample", "budget": 24, "rollouts_per_prompt": 2},
    "curriculum": {
        "type": "cures",
        "prompts_per_step": 16,
        "rollouts_per_step": 32,
        "allocation": {"type": "screen"},
    },
    "training": {"type": "torch", "learning_rate": 5e-3, "solved_advantage": 1.0, "length_norm": 4.0},
    "device": {"type": "cpu", "threads": 1},
}


class NoParent(Parent):
    """For a job in this process: nobody listens, and nobody asks it to stop."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def emit(self, event: JobEvent) -> None:
        """Nobody listens."""


def curve(config: dict[str, Any] = CONFIG) -> dict[str, Any]:
    """The run's figures: of the prior, of every step, and of the posterior after each stage."""
    with tempfile.TemporaryDirectory() as name:
        return _curve(RunConfig.model_validate(config), Path(name))


def _curve(cfg: RunConfig, folder: Path) -> dict[str, Any]:
    golds = ("0123456789", "01234", "0", "+")
    prompts = PromptSet.of(
        Prompt(f"prompt-{i:02d}", f"{i % 10}+{i // 10}=", golds[i % 4], source="ab"[i % 2]) for i in range(40)
    )
    prompts.write_parquet(folder / "prompts.parquet")
    torch.manual_seed(0)
    tokenizer = character_tokenizer()
    model = character_model(WarmStartPolicy(hidden_size=32, layers=2, heads=2), tokenizer)
    save_policy(Policy(model, tokenizer, torch.device("cpu")), folder / "policy")
    common: dict[str, Any] = {
        "config": cfg,
        "policy": str(folder / "policy"),
        "prompts": folder / "prompts.parquet",
    }

    def done(job: Job) -> Path:
        job.out.mkdir(parents=True)
        job.scratch.mkdir()
        (prior if job.name == "prior" else epoch).run(job, NoParent())
        return job.out

    first = done(Job(name="prior", scratch=folder / "p", out=folder / "prior", **common))
    posteriors = [_posterior(first)]
    figures, steps = [_json(first / "figures.json")], []
    state, checkpoint = first, None
    for k in (1, 2):
        job = Job(name="epoch", epoch=k, scratch=folder / str(k), out=folder / f"epoch-{k}", **common)
        state = done(job.model_copy(update={"posterior": state / "posterior.parquet", "checkpoint": checkpoint}))
        checkpoint = state / "checkpoint"
        lines = (checkpoint / "metrics.jsonl").read_bytes().splitlines()
        steps += [json.loads(line) for line in lines]
        figures.append(_json(state / "figures.json"))
        posteriors.append(_posterior(state))
    for stage in figures:
        del stage["machine"]  # what is recorded holds on any
    return {"stages": figures, "steps": steps, "posteriors": posteriors}


def _posterior(folder: Path) -> dict[str, Any]:
    posterior = load_posterior(folder / "posterior.parquet")
    return {**posterior.summary(bins=5), "means": [round(float(p), 6) for p in posterior.mean()[:8]]}


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())
