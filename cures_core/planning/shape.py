"""Sizes of a policy, counted on a model without memory: exact for every architecture that `transformers` has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cures_core.config.policy import WarmStartPolicy
from cures_core.errors import ConfigError, MissingInput
from cures_core.policy.adapters import targeted
from cures_core.rollout.room import context_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Shape:
    """Numbers that memory follows from.

    `parameters`: weights; `trained`: those the optimizer changes (adapters come on top of `parameters`).
    `keys`: values of keys, or of values, that one token leaves in one layer's cache. `gated`: the feed-forward part
    has a gate beside its input, as in Llama and Qwen. `context`: longest sequence, in tokens; None: no limit.
    `stepwise`: its activation is worked out in several operations (`gelu_new`), each of which keeps what it read.
    """

    architecture: str
    parameters: int
    trained: int
    layers: int
    hidden: int
    feed_forward: int
    keys: int
    vocabulary: int
    context: int | None
    gated: bool
    stepwise: bool = False


def read_architecture(folder: Path, given: Path | None = None) -> dict[str, object]:
    """The `config.json` of `folder`, or the file `given`. Raises `MissingInput`, and `ConfigError` for no such JSON."""
    path = given or folder / "config.json"
    if not path.is_file():
        raise MissingInput(
            f"{path}: no such file, so the sizes of the policy are not known. Put the model's folder there, or name "
            "the config.json of its architecture with --architecture (configs/architectures/ has two)"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(values, dict) or "model_type" not in values:
        raise ConfigError(f"{path}: has no model_type; it must be the config.json of a transformers model")
    return values


def model_config(values: dict[str, object]) -> PreTrainedConfig:
    """What `transformers` makes of a `config.json`, with its own defaults. Raises `ConfigError`."""
    from transformers import AutoConfig

    rest = {key: value for key, value in values.items() if key != "model_type"}
    with _built(values):
        config: PreTrainedConfig = AutoConfig.for_model(str(values["model_type"]), **rest)
        return config


def pretrained_shape(values: dict[str, object], adapters: tuple[int, Sequence[str]] | None = None) -> Shape:
    """Sizes of the causal LM with this `config.json`; `adapters`: rank and target layers. Raises `ConfigError`."""
    import torch
    from transformers import AutoModelForCausalLM

    config = model_config(values)
    with _built(values), torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return _measured(model, adapters)


@contextmanager
def _built(values: dict[str, object]) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError) as error:
        raise ConfigError(f"model_type {values['model_type']!r}: transformers cannot build it: {error}") from error


def warm_start_shape(cfg: WarmStartPolicy, adapters: tuple[int, Sequence[str]] | None = None) -> Shape:
    """Sizes of the small policy."""
    import torch

    from cures_core.policy.characters import character_model, character_tokenizer

    with torch.device("meta"):
        return _measured(character_model(cfg, character_tokenizer()), adapters)


def _measured(model: PreTrainedModel, adapters: tuple[int, Sequence[str]] | None) -> Shape:
    from transformers.activations import NewGELUActivation

    cfg, context = model.config.get_text_config(decoder=True), context_of(model.config)
    total = sum(p.numel() for p in model.parameters())  # tied weights are named once
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if cfg.tie_word_embeddings and head is not None and head.weight is not embedding.weight:
        total -= head.weight.numel()  # transformers ties nothing while another thread loads a model
    hidden, heads = int(cfg.hidden_size), int(cfg.num_attention_heads)
    head_size = int(getattr(cfg, "head_dim", None) or hidden // heads)
    feed_forward = getattr(cfg, "intermediate_size", None) or getattr(cfg, "n_inner", None) or 4 * hidden
    return Shape(
        architecture=type(model).__name__,
        parameters=total,
        trained=total if adapters is None else _adapter_parameters(model, *adapters),
        layers=int(cfg.num_hidden_layers),
        hidden=hidden,
        feed_forward=int(feed_forward),
        keys=int(getattr(cfg, "num_key_value_heads", None) or heads) * head_size,
        vocabulary=int(cfg.vocab_size),
        context=None if context is None else context.tokens,
        gated=any(name.endswith("gate_proj") for name, _ in model.named_modules()),
        stepwise=any(isinstance(module, NewGELUActivation) for module in model.modules()),
    )


def _adapter_parameters(model: PreTrainedModel, rank: int, targets: Sequence[str]) -> int:
    return rank * sum(sum(layer.weight.shape) for layer in targeted(model, targets))
