"""Prompts in, rollouts with log-probabilities out. `build_engine` makes the engine that a configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cures_core.config.rollout import RolloutConfig, VllmRolloutConfig, VllmServerRolloutConfig
from cures_core.rollout.engine import RolloutEngine

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def build_engine(
    cfg: RolloutConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: torch.device | None = None
) -> RolloutEngine:
    """The engine of `cfg.type`, generating with `model` (a `transformers` causal LM on `device`) or a copy of it."""
    if isinstance(cfg, VllmRolloutConfig):
        from cures_core.rollout.vllm.engine import VllmEngine

        return VllmEngine(model, tokenizer, cfg)
    if isinstance(cfg, VllmServerRolloutConfig):
        from cures_core.rollout.vllm.server_engine import VllmServerEngine

        return VllmServerEngine(model, tokenizer, cfg)
    from cures_core.rollout.hf.engine import HfEngine

    return HfEngine(model, tokenizer, cfg, device)


__all__ = ["RolloutEngine", "build_engine"]
