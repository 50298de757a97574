"""A small character-level causal LM and its tokenizer, in the classes that transformers and vLLM know."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cures_core.builtin.chains import MAX_STEPS, SYMBOLS
from cures_core.config.policy import WarmStartPolicy
from cures_core.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
POSITIONS = max(64, 4 * MAX_STEPS)
INITIAL_DEVIATION = 0.02  # GPT-2's


def word_pattern(words: Sequence[str]) -> str:
    """Matches one of `words`, the longest that fits."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def character_tokenizer(symbols: str = SYMBOLS, words: Sequence[str] = ()) -> PreTrainedTokenizerBase:
    """A `PreTrainedTokenizerFast` with one token a character, and one for each of `words`; no begin token, pads on
    the left."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate([PAD, EOS, UNKNOWN, *symbols, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    cut = Regex(f"{word_pattern(words)}|.") if words else ""
    tokenizer.pre_tokenizer = pre_tokenizers.Split(cut, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def character_model(
    cfg: WarmStartPolicy,
    tokenizer: PreTrainedTokenizerBase,
    positions: int = POSITIONS,
    initial_deviation: float = INITIAL_DEVIATION,
) -> PreTrainedModel:
    """A `GPT2LMHeadModel` with random weights drawn from torch's current generator.

    Learned absolute positions, because a scratchpad digit has to find the operands of its own step.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    if cfg.hidden_size % cfg.heads:
        raise ConfigError(f"policy.hidden_size {cfg.hidden_size} is not a multiple of policy.heads {cfg.heads}")
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=positions,
            n_embd=cfg.hidden_size,
            n_layer=cfg.layers,
            n_head=cfg.heads,
            activation_function="gelu_pytorch_tanh",  # GPT-2's own function, in one kernel instead of eight
            initializer_range=initial_deviation,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
