"""A tiny random model in a folder, for a rehearsal where the pretrained one is not at hand."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any


def write_stand_in(folder: Path) -> Path:
    """A Llama of two layers with random weights and a tokenizer of single characters, in Hugging Face format."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from cures_core.policy.characters import character_tokenizer

    tokenizer = character_tokenizer(string.ascii_letters + string.digits + string.punctuation + " \n")
    build: Any = LlamaForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=1024,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                bos_token_id=None,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
