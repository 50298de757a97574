"""A tiny random Llama and a character tokenizer, built in memory."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHARACTERS = "0123456789+-*=? abcdefghijklmnopqrstuvwxyz\n"
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")


def character_tokenizer(**options: Any) -> Any:
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *CHARACTERS))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **{**special, **options})


def tiny_llama(seed: int = 0, **options: Any) -> Any:
    """Weights large enough for distributions that differ from token to token."""
    generator_state = torch.get_rng_state()
    torch.manual_seed(seed)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    defaults = {"num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.3}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    cfg = LlamaConfig(vocab_size=len(SPECIAL) + len(CHARACTERS), **{**size, **defaults, **tokens, **options})
    model = LlamaForCausalLM(cfg)
    torch.set_rng_state(generator_state)
    return model.eval()
