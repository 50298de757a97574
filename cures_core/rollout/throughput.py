"""Knows how fast an engine is beside `model.generate` on the same requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cures_core.config.rollout import RolloutConfig
from cures_core.rollout import build_engine
from cures_core.rollout.hf.causal_lm import CausalLM
from cures_core.rollout.prompting import encode_prompts
from cures_core.rollout.stopping import end_token_ids
from cures_core.terms import Prompt, Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def mixed_requests(num_prompts: int, n: int, *, longest: int = 20, seed: int = 0) -> list[Request]:
    """Requests of `n` rollouts for sums of 1 to `longest` two-digit numbers: prompts of very different lengths."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    requests = []
    for i in range(num_prompts):
        terms = generator.integers(10, 100, size=generator.integers(1, longest + 1))
        problem = "+".join(map(str, terms)) + "="
        requests.append(Request(f"bench-{i}", Prompt(f"bench-{i}", problem, str(terms.sum())), n, seed))
    return requests


def made_up_model(hidden_size: int = 96, layers: int = 3) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A random Llama that ends its completions now and then, and a character tokenizer: mixed lengths, no download."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from cures_core.policy.characters import character_tokenizer

    tokenizer = character_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        build: Any = LlamaForCausalLM
        model = build(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=hidden_size,
                intermediate_size=4 * hidden_size,
                num_hidden_layers=layers,
                num_attention_heads=max(1, hidden_size // 32),
                num_key_value_heads=max(1, hidden_size // 32),
                max_position_embeddings=1024,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                bos_token_id=None,
            )
        ).eval()
    return model, tokenizer


WAYS = 3
"""In how many ways `throughput` serves the requests."""


def throughput(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cfg: RolloutConfig,
    requests: Sequence[Request],
    *,
    repeats: int = 3,
    generate_rows: int = 64,
    measured: Callable[[str], None] = lambda _: None,
) -> dict[str, float]:
    """Tokens a second (end tokens counted, padding not), best of `repeats`, of three ways to serve `requests`.

    `engine`: that of `cfg`; `generate_grouped`: `model.generate` prompt by prompt with `num_return_sequences`;
    `generate_batched`: `model.generate` on batches of `generate_rows` left-padded rows. `speedup` is over the faster of
    the two. Completions are sampled, so lengths agree only on average. `start_s`: seconds until the engine is ready.
    `measured` hears of each of the three times `repeats` measurements, by the name of the way.
    """
    started = time.perf_counter()
    with closing(build_engine(cfg, model, tokenizer)) as engine:
        start_s = time.perf_counter() - started
        contenders: dict[str, Callable[[], int]] = {
            "engine": lambda: sum(len(r.token_ids) for group in engine.generate(requests) for r in group),
            "generate_grouped": lambda: _generate(model, tokenizer, cfg, _by_group(requests)),
            "generate_batched": lambda: _generate(model, tokenizer, cfg, _by_rows(requests, generate_rows)),
        }
        rates: dict[str, float] = dict.fromkeys(contenders, 0.0)
        for _ in range(repeats):  # interleaved: what else the machine does falls on all alike
            for name, contender in contenders.items():
                rates[name] = max(rates[name], _rate(contender))
                measured(name)
    figures = {f"{name}_tokens_per_s": rate for name, rate in rates.items()}
    figures["speedup"] = rates["engine"] / max(rates["generate_grouped"], rates["generate_batched"])
    figures["rollouts"] = float(sum(request.n for request in requests))
    figures["start_s"] = start_s
    figures["threads"] = float(torch.get_num_threads())
    return figures


def _rate(contender: Callable[[], int]) -> float:
    started = time.perf_counter()
    tokens = contender()
    return tokens / (time.perf_counter() - started)


def _by_group(requests: Sequence[Request]) -> list[tuple[list[Prompt], int]]:
    return [([request.prompt], request.n) for request in requests]


def _by_rows(requests: Sequence[Request], batch_rows: int) -> list[tuple[list[Prompt], int]]:
    rows = [request.prompt for request in requests for _ in range(request.n)]
    return [(rows[i : i + batch_rows], 1) for i in range(0, len(rows), batch_rows)]


def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cfg: RolloutConfig,
    batches: Sequence[tuple[list[Prompt], int]],
) -> int:
    """Tokens that `model.generate` made for `batches` of (prompts, completions of each)."""
    lm = CausalLM(model, next(model.parameters()).device)
    ends = end_token_ids(model, tokenizer)
    tokens = 0
    for prompts, n in batches:
        encoded = [list(ids) for ids in encode_prompts(prompts, tokenizer, cfg.prompt_format)]
        padded = tokenizer.pad({"input_ids": encoded}, padding_side="left", return_tensors="pt").to(lm.device)
        sampling = {} if cfg.greedy else {"temperature": cfg.temperature, "top_p": cfg.top_p, "top_k": 0}
        ending = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": ends or None}
        options = {"num_return_sequences": n, "max_new_tokens": cfg.max_new_tokens, "do_sample": not cfg.greedy}
        generate: Any = model.generate
        with lm.evaluating():
            output = generate(**padded, **options, **sampling, **ending)
        completions = output[:, padded["input_ids"].shape[1] :]
        tokenizer.batch_decode(completions, skip_special_tokens=True)  # the engine returns text too
        tokens += _until_end(completions.cpu().numpy(), ends)
    return tokens


def _until_end(completions: torch.Tensor, ends: Sequence[int]) -> int:
    """Tokens up to and including the first end token of every row."""
    is_end = np.isin(completions, ends)
    width = completions.shape[1]
    return int(np.where(is_end.any(1), is_end.argmax(1) + 1, width).sum())
