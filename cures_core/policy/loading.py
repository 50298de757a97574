"""From a folder in Hugging Face format to a policy in memory, with or without adapters, and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from cures_core.config.device import DeviceConfig
from cures_core.config.training import LoraConfig
from cures_core.errors import ConfigError
from cures_core.failures import machine_failure
from cures_core.policy.accounting import (
    has_tokenizer,
    load_weights,
    no_model,
    require_fitting,
    require_model,
    require_there,
    require_tokenizer,
)
from cures_core.policy.adapters import base_name, holds_adapters, require_alike, targeted, with_adapters

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Policy:
    """A causal LM on its device, with its tokenizer. `model` is the peft wrapper where adapters are trained."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """Trainable parameters by name: what a checkpoint holds. Order is the model's."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def load_trainable(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Copy saved tensors into the trainable parameters. `ConfigError` if names or shapes differ."""
        import torch

        mine = self.trainable()
        if set(mine) != set(weights):
            odd = sorted(set(mine) ^ set(weights))[0]
            raise ConfigError(f"checkpoint and policy have different trainable tensors, for example {odd}")
        with torch.no_grad():
            for name, parameter in mine.items():
                if parameter.shape != weights[name].shape:
                    raise ConfigError(
                        f"{name}: checkpoint has shape {tuple(weights[name].shape)}, policy {tuple(parameter.shape)}"
                    )
                parameter.copy_(weights[name])


def is_adapted(model: PreTrainedModel) -> TypeGuard[PeftModel]:
    """Is it a peft wrapper: adapters over a base model?"""
    return hasattr(model, "peft_config")


def setup_torch(cfg: DeviceConfig, seed: int) -> torch.device:
    """Seed torch, fix its threads, choose its kernels, deterministic ones where there are; returns the device."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(seed)
    device = device_of(cfg)
    if device.type == "cpu":
        torch.set_num_threads(cfg.threads)
    else:
        # cuDNN's attention, the first choice on recent cards, makes a plan for each shape, and micro-batches and
        # prefills have a new one nearly every time; with a mask its backward pass has given NaN (pytorch 196678).
        torch.backends.cuda.enable_cudnn_sdp(False)
    return device


def device_of(cfg: DeviceConfig) -> torch.device:
    """The torch device that the configuration comes to on this machine."""
    import torch

    if cfg.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device.type is cuda, but torch finds no CUDA device; set device.type = 'cpu' or 'auto'")
    on_gpu = cfg.type == "cuda" or (cfg.type == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if on_gpu else "cpu")


def load_tokenizer(folder: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The policy's tokenizer, padding on the left. Raises `MissingInput`."""
    from transformers import AutoTokenizer

    require_there(folder)
    require_tokenizer(Path(folder))
    try:
        return AutoTokenizer.from_pretrained(folder, revision=revision, padding_side="left", trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise machine_failure(error, Path(folder)) or no_model(folder, error) from error


def tokenizer_place(folder: str | Path, base: str | None = None) -> str | Path:
    """Where the tokenizer of a policy is: that of adapters may be with their base model."""
    if holds_adapters(folder) and not has_tokenizer(Path(folder)):
        return base_name(Path(folder), base)
    return folder


def load_policy(
    folder: str | Path,
    device: torch.device,
    *,
    dtype: str = "float32",
    revision: str | None = None,
    lora: LoraConfig | None = None,
    base: str | None = None,
) -> Policy:
    """Load model and tokenizer; with `lora`, wrap the model in fresh adapters (random A drawn from torch's generator).

    Of a folder of adapters: on their base model (`base`, or what they say themselves), to be trained further with
    `lora`, else merged. Raises `MissingInput` where neither a folder nor a reachable hub id is found, `ConfigError` for
    weights, adapters or a tokenizer that do not belong to the model.
    """
    import torch

    adapters = Path(folder) if holds_adapters(folder) else None
    if adapters is not None and lora is not None:
        require_alike(adapters, lora)
    whole = folder if adapters is None else base_name(adapters, base)
    require_model(Path(whole))
    tokenizer = load_tokenizer(tokenizer_place(folder, base), revision)
    model: Any = load_weights(whole, revision=revision, dtype=getattr(torch, dtype))
    require_fitting(folder, tokenizer, model)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if adapters is not None:
        adapted: Any = with_adapters(model, adapters, train=lora is not None)
        model = adapted.merge_and_unload() if lora is None else adapted
    policy = Policy(model, tokenizer, device)
    if lora is not None and adapters is None:  # drawn on the CPU, whatever the device
        policy = fresh_adapters(policy, lora)
    return on_device(policy)


def on_device(policy: Policy) -> Policy:
    """The policy with all of its weights where it is to be."""
    return Policy(cast(Any, policy.model).to(policy.device), policy.tokenizer, policy.device)


def fresh_adapters(policy: Policy, lora: LoraConfig) -> Policy:
    """The policy with new adapters over its model, which change nothing yet: B is zero. Raises `ConfigError` for
    targets that it does not have."""
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    targeted(policy.model, lora.targets)
    model: Any = get_peft_model(
        policy.model,
        PeftLora(
            r=lora.rank,
            lora_alpha=lora.alpha,
            target_modules=list(lora.targets),
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
        ),
    )
    return Policy(model, policy.tokenizer, policy.device)


def save_policy(policy: Policy, folder: Path) -> None:
    """Write a normal Hugging Face folder: adapters merged, safetensors, tokenizer beside it."""
    model = policy.model.merge_and_unload() if is_adapted(policy.model) else policy.model
    model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
