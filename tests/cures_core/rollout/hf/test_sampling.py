"""Uniforms depend on the identity alone; tokens follow the inverse CDF; the nucleus is the smallest set."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cures_core.rollout.hf.sampling import draw, nucleus, uniforms


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
