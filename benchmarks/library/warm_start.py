"""The scratchpad world's policy before RL: a small GPT-2 that has seen the tutors for some minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.library.scratchpad import SYMBOLS, Tutors
from cures_core.policy.characters import character_tokenizer
from cures_core.policy.loading import Policy, save_policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BATCH, _RATE, _WARM_UP = 16, 2.5e-3, 50
_TYPICAL = 26  # tokens of a completion: the loss is a sum over a constant, or short ones would weigh too much
_DRAWN = 8  # batches that are drawn together and cut by length


def model_for(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """0.36 million weights; initial ones of deviation 0.08, with which copying is learnt several times sooner."""
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=160, n_embd=96, n_layer=3, n_head=4, initializer_range=0.08,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def make(out: Path, steps: int, seed: int = 0) -> None:
    """Train for `steps` batches of demonstrations and write the policy to `out`; prints the loss as it goes."""
    torch.manual_seed(seed)
    tokenizer = character_tokenizer(SYMBOLS)
    model = model_for(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    tutors, rng = Tutors(seed), np.random.default_rng([seed, 0x57415256])
    started, losses = time.process_time(), []
    for step in range(steps):
        if step % _DRAWN == 0:
            batches = _batches(tutors, rng, tokenizer)
        ids, labels = batches[step % _DRAWN]
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / _WARM_UP) * (1 - 0.93 * step / steps)
        logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
        entropy = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum")
        loss: Any = entropy / (_BATCH * _TYPICAL)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 500 == 0:
            seconds = time.process_time() - started
            print(f"warm start {step + 1}: loss {np.mean(losses[-500:]):.3f}, {seconds:.0f} s", flush=True)
    save_policy(Policy(model.eval(), tokenizer, torch.device("cpu")), out)


def _batches(
    tutors: Tutors, rng: np.random.Generator, tokenizer: PreTrainedTokenizerBase
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    vocabulary = tokenizer.get_vocab()
    pairs = sorted((tutors.demonstration(rng) for _ in range(_BATCH * _DRAWN)), key=lambda p: len(p[0]) + len(p[1]))
    batches = []
    for i in rng.permutation(_DRAWN):
        chunk = pairs[i * _BATCH : (i + 1) * _BATCH]
        width = max(len(p) + len(c) for p, c in chunk) + 1
        ids = torch.full((_BATCH, width), tokenizer.pad_token_id)
        labels = torch.full((_BATCH, width), -100)
        for row, (problem, completion) in enumerate(chunk):
            tokens = torch.tensor([vocabulary[x] for x in problem + completion] + [tokenizer.eos_token_id])
            ids[row, : len(tokens)] = tokens
            labels[row, len(problem) : len(tokens)] = tokens[len(problem) :]
        batches.append((ids, labels))
    return batches
