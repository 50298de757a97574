"""Knows how long a prompt may be: what a completion of full length leaves of the policy's context."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cures_core.config.rollout import AnyVllmConfig, Sampling
from cures_core.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Context(NamedTuple):
    """Most tokens of prompt and completion together, and where that is said. `stretched`: positions are scaled by a
    factor, which vLLM may count in."""

    tokens: int
    said: str
    stretched: bool = False


def context_of(config: PreTrainedConfig) -> Context | None:
    """The context of the model with this configuration; None where it has no limit."""
    text = config.get_text_config(decoder=True)
    limit = getattr(text, "max_position_embeddings", None)
    if not limit:
        return None
    scaling = getattr(text, "rope_parameters", None) or {}
    stretched = any("factor" in each for each in (scaling, *scaling.values()) if isinstance(each, dict))
    return Context(int(limit), "max_position_embeddings of the policy's config.json", stretched)


def planned_context(cfg: Sampling, own: Context | None) -> Context | None:
    """The context that the engine of `cfg` will have with a policy whose own is `own`; None where there is no limit,
    and where only the engine itself knows it."""
    if isinstance(cfg, AnyVllmConfig) and cfg.max_model_len is not None:
        return Context(cfg.max_model_len, "rollout.max_model_len")
    return None if own is not None and own.stretched and isinstance(cfg, AnyVllmConfig) else own


def prompt_room(cfg: Sampling, context: int, setting: str = "rollout.max_new_tokens") -> int:
    """Most tokens of a prompt in a context of so many. `setting`: what `cfg.max_new_tokens` is called.

    Raises `ConfigError` where a completion of full length would leave none.
    """
    if context <= cfg.max_new_tokens:
        more = ", or raise rollout.max_model_len (a server's --max-model-len)" if isinstance(cfg, AnyVllmConfig) else ""
        raise ConfigError(
            f"{setting} = {cfg.max_new_tokens} leaves no room for a prompt in the policy's context of {context} "
            f"tokens. Lower it{more}."
        )
    return context - cfg.max_new_tokens
