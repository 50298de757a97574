"""Uniforms depend on the identity alone; tokens follow the inverse CDF; the nucleus is the smallest set."""

from __future__ import annotations

import hashlib
import time
from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cures_core.rollout.hf.sampling import draw, inverse_cdf, nucleus, uniforms


def test_uniforms_are_the_philox_stream_of_the_hashed_identity() -> None:
    digest = hashlib.blake2b(b"7\0prompt\x003", digest_size=16).digest()
    stream = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
    assert np.array_equal(uniforms([(7, "prompt", 3)], 11)[0], stream.random(11))


def test_uniforms_of_a_row_do_not_depend_on_the_others_or_on_the_length() -> None:
    identities = [(0, "a", 0), (0, "a", 1), (1, "a", 0), (0, "b", 0)]
    rows = uniforms(identities, 6)
    assert np.array_equal(uniforms(identities[::-1], 9)[::-1, :6], rows)
    assert len(np.unique(rows)) == rows.size


def test_uniforms_are_uniform() -> None:
    values = uniforms([(0, "p", i) for i in range(200)], 50)
    assert values.min() >= 0
    assert values.max() < 1
    assert np.abs(np.histogram(values, bins=10, range=(0, 1))[0] - 1000).max() < 120


def test_token_is_the_first_whose_cumulative_probability_exceeds_the_uniform() -> None:
    logits = torch.log(torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0]))
    for uniform, token in [(0.0, 1), (0.19, 1), (0.21, 3), (0.69, 3), (0.71, 4), (np.nextafter(1, 0), 4)]:
        tokens, logprobs = draw(logits[None], torch.tensor([uniform], dtype=torch.float64), temperature=1, top_p=1)
        assert tokens.item() == token
        assert logprobs.item() == pytest.approx(logits[token].item(), abs=1e-6)


def test_rare_tokens_of_a_large_vocabulary_are_reached() -> None:
    size = 150_000
    uniform = torch.tensor([0.25, 0.5, 0.999_999], dtype=torch.float64)
    tokens, _ = draw(torch.zeros(3, size), uniform, temperature=1, top_p=1)
    assert (tokens - uniform * size).abs().max() <= 2


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_logprob_is_the_log_softmax_at_the_temperature(temperature: float) -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5]], dtype=torch.bfloat16)
    tokens, logprobs = draw(logits, torch.tensor([0.5], dtype=torch.float64), temperature=temperature, top_p=0.8)
    expected = torch.log_softmax(logits.float() / temperature, -1)[0, tokens.item()]
    assert logprobs.dtype is torch.float32
    assert logprobs.item() == pytest.approx(expected.item(), abs=1e-6)


def test_temperature_zero_takes_the_most_likely_at_temperature_one() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5]])
    tokens, logprobs = draw(logits, torch.tensor([0.99], dtype=torch.float64), temperature=0, top_p=1)
    assert tokens.item() == 1
    assert logprobs.item() == pytest.approx(torch.log_softmax(logits, -1)[0, 1].item())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=12, unique=True), st.floats(0.01, 0.99))
def test_nucleus_is_the_smallest_set_of_the_mass(weights: list[int], top_p: float) -> None:
    probs = torch.tensor(weights, dtype=torch.float32) / sum(weights)
    kept = nucleus(probs[None], top_p)[0] > 0
    ranked = sorted(probs.tolist(), reverse=True)
    size = int(kept.sum())
    assert sorted(probs[kept].tolist(), reverse=True) == ranked[:size]
    assert sum(ranked[:size]) >= top_p - 1e-6
    assert sum(ranked[: size - 1]) < top_p + 1e-6


def test_nucleus_keeps_ties_whatever_their_order() -> None:
    kept = nucleus(torch.tensor([[0.2, 0.4, 0.2, 0.2]]), 0.5) > 0
    assert kept.all()


def one_running_sum(
    logits: torch.Tensor, uniforms: torch.Tensor, temperature: float, top_p: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition: one float64 running sum over the vocabulary, and a sort of all of it for a nucleus."""
    logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
    weights = logprobs.exp()
    if top_p < 1:
        ranked = weights.sort(dim=-1, descending=True).values
        size = (ranked.cumsum(dim=-1, dtype=torch.float64) - ranked < top_p).sum(dim=-1, keepdim=True)
        weights = torch.where(weights >= ranked.gather(-1, size - 1), weights, 0.0)
    cdf = weights.cumsum(dim=-1, dtype=torch.float64)
    tokens = torch.searchsorted(cdf, uniforms.unsqueeze(-1) * cdf[:, -1:], right=True)
    return tokens.squeeze(-1), logprobs.gather(-1, tokens).squeeze(-1)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 9),
    width=st.sampled_from([1, 2, 255, 256, 257, 512, 700, 5000, 49_152]),
    spread=st.sampled_from([0.0, 0.3, 3.0, 30.0]),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    top_p=st.sampled_from([1.0, 0.9, 0.3]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_blocks_draw_what_one_running_sum_draws(
    seed: int, rows: int, width: int, spread: float, temperature: float, top_p: float, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (spread * torch.randn(rows, width, generator=generator)).to(dtype)
    drawn_from = torch.rand(rows, dtype=torch.float64, generator=generator)
    tokens, logprobs = draw(logits, drawn_from, temperature=temperature, top_p=top_p)
    expected, scores = one_running_sum(logits, drawn_from, temperature, top_p)
    assert torch.equal(tokens, expected)
    assert torch.equal(logprobs, scores)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(257, 3000), st.booleans())
def test_on_a_border_a_neighbour_that_has_mass_is_drawn(seed: int, width: int, sparse: bool) -> None:
    """Uniforms that lie on a border of the running sum to the last bit: rounding may choose either side."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(1, width, generator=generator)
    if sparse:
        weights[torch.rand(1, width, generator=generator) < 0.95] = 0.0
        weights[0, width // 2] = 0.5
    cdf = weights[0].cumsum(0, dtype=torch.float64)
    on_border = (cdf / cdf[-1]).clamp(max=np.nextafter(1, 0))
    tokens = inverse_cdf(weights.expand(width, -1), on_border.unsqueeze(-1)).squeeze(-1)
    below = torch.where(tokens > 0, cdf[tokens - 1], 0.0)
    target, noise = on_border * cdf[-1], 1e-12 * cdf[-1]
    assert (weights[0, tokens] > 0).all()
    assert (below <= target + noise).all()
    assert (cdf[tokens] >= target - noise).all()


def test_the_last_uniform_draws_a_token_that_has_mass() -> None:
    logits = torch.full((1, 1000), -torch.inf)
    logits[0, [3, 500]] = torch.tensor([0.1, 0.7])
    last = torch.tensor([np.nextafter(1, 0)], dtype=torch.float64)
    assert draw(logits, last, temperature=1, top_p=1)[0].item() == 500


@pytest.mark.parametrize("width", [5, 1000])
def test_logits_that_are_not_numbers_give_a_logprob_that_is_not_one(width: int) -> None:
    tokens, logprobs = draw(
        torch.full((2, width), torch.nan), torch.tensor([0.0, 0.7], dtype=torch.float64), temperature=1, top_p=1
    )
    assert ((tokens >= 0) & (tokens < width)).all()
    assert logprobs.isnan().all()


@pytest.mark.slow
def test_drawing_from_a_real_vocabulary_is_four_times_as_fast_as_one_running_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(256, 49_152, generator=generator)
    drawn_from = torch.rand(256, dtype=torch.float64, generator=generator)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {"blocks": [], "one": []}
    try:
        for _ in range(6):
            for name, work in (
                ("blocks", lambda: draw(logits, drawn_from, temperature=1, top_p=1)),
                ("one", lambda: one_running_sum(logits, drawn_from, 1)),
            ):
                at = time.thread_time()
                work()
                seconds[name].append(time.thread_time() - at)
    finally:
        torch.set_num_threads(threads)
    assert median(seconds["one"]) > 4 * median(seconds["blocks"])
