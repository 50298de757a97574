"""Micro-batches: every rollout once, within the budget, nearly full; and the same gradients however they are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cures_core.config.training import TorchTrainerConfig
from cures_core.terms import FinishReason, Rollout
from cures_core.training.advantages import Sample, batch_samples
from cures_core.training.forward import completion_logprobs, keeps_rollouts_apart
from cures_core.training.packing import length, micro_batches, pack, shard
from cures_core.training.torch_trainer import TorchTrainer
from tests.cures_core.rollout.tiny import tiny_llama
from tests.cures_core.training.test_torch_trainer import groups, logprobs, policy


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 200), st.booleans())
def test_every_index_once_within_the_budget(lengths: list[int], budget: int, share: bool) -> None:
    batches = pack(lengths, budget, share_rows=share)
    assert sorted(i for b in batches for row in b for i in row) == list(range(len(lengths)))
    for b in batches:
        width = max(sum(lengths[i] for i in row) for row in b)
        assert width == max(lengths[i] for row in b for i in row)
        assert len(b) * width <= budget or len(b) == 1
        assert share or all(len(row) == 1 for row in b)


def test_micro_batches_are_full() -> None:
    lengths = np.random.default_rng(0).integers(20, 400, 500).tolist()
    batches = pack(lengths, 4096)
    columns = sum(len(b) * max(lengths[i] for row in b for i in row) for b in batches)
    assert sum(lengths) / columns > 0.95
    assert len(batches) <= sum(lengths) / 4096 * 1.1 + 1


@given(seed=st.integers(0, 10_000), num=st.integers(1, 5), budget=st.integers(64, 256), world=st.integers(1, 3))
@settings(max_examples=15)
def test_neither_micro_batches_nor_shards_change_the_gradient(seed: int, num: int, budget: int, world: int) -> None:
    p = policy()
    batch = groups(p, seed, num)
    samples = batch_samples(batch, "grpo", "prompt")
    found = []
    for tokens, parts in ((1 << 20, [samples]), (budget, [shard(samples, r, world) for r in range(world)])):
        trainer = TorchTrainer(p, TorchTrainerConfig(learning_rate=1e-3, micro_batch_tokens=tokens), 1.0)
        total: dict[str, Any] = {k: torch.zeros_like(v) for k, v in p.trainable().items()}
        for part in parts:
            trainer._gradients(part)
            for k, v in p.trainable().items():
                total[k] += 0 if v.grad is None else v.grad
        found.append(total)
    for name, whole in found[0].items():
        assert torch.allclose(whole, found[1][name], atol=1e-5, rtol=1e-4), name


def test_packed_logprobs_are_those_of_each_rollout_alone() -> None:
    p = policy()
    samples = batch_samples(groups(p, 5, 6), "grpo", "prompt")
    (batch,) = micro_batches(samples, 1 << 20, 0)
    assert len(batch.ids) < len(samples)  # rows are shared
    with torch.no_grad():
        logp, _ = completion_logprobs(p.model, batch, 1.0, p.device)
    alone = [logprobs(p, s.rollout.prompt_ids, s.rollout.token_ids) for s in batch.samples]
    assert torch.allclose(logp, torch.tensor([x for row in alone for x in row]), atol=1e-5)
    assert batch.tokens == sum(length(s) for s in samples)


def test_models_that_mix_rollouts_are_recognised() -> None:
    model = tiny_llama()
    assert keeps_rollouts_apart(model, torch.device("cpu"))
    plain = model.forward
    model.forward = lambda **kw: plain(**{**kw, "position_ids": torch.arange(kw["input_ids"].shape[1])[None]})
    assert not keeps_rollouts_apart(model, torch.device("cpu"))


def test_shards_are_even_and_disjoint() -> None:
    samples = batch_samples(groups(policy(), 1, 6), "grpo", "prompt")
    parts = [shard(samples, r, 2) for r in range(2)]
    assert sorted(id(s) for part in parts for s in part) == sorted(map(id, samples))
    tokens = [sum(map(length, part)) for part in parts]
    assert abs(tokens[0] - tokens[1]) <= max(map(length, samples))


@pytest.mark.parametrize("world", [1, 2])
def test_an_empty_batch_has_empty_shards(world: int) -> None:
    assert shard([], 0, world) == []
    assert pack([], 10) == []


def sample(prompt: tuple[int, ...], tokens: tuple[int, ...]) -> Sample:
    """The i-th token has the log-probability -i / 4."""
    logprobs = tuple(-i / 4 for i in range(len(tokens)))
    return Sample(Rollout("r", 0, prompt, tokens, logprobs, "", FinishReason.STOP), 1.0, 1.0)


LONG, SHORT, MIDDLE = sample((1, 2), (3, 4, 5)), sample((6,), (7,)), sample((8,), (9, 10))


def test_rows_are_filled_with_the_longest_that_fits() -> None:
    assert pack([5, 2, 3], 10) == [[[0], [2, 1]]]
    assert pack([5, 2, 3], 9) == [[[0]], [[2], [1]]]
    assert pack([5, 2, 3], 10, share_rows=False) == [[[0], [2]], [[1]]]
    assert pack([7, 2, 4, 1], 7) == [[[0]], [[2]], [[1], [3]]]
    assert pack([9, 2, 4, 3, 1], 18) == [[[0], [2, 3, 1]], [[4]]]
    assert pack([4, 4, 4], 8) == [[[0], [1]], [[2]]]  # of equal ones the first comes first
    assert pack([20, 1], 10) == [[[0]], [[1]]]  # longer than the budget: alone


def test_the_arrays_of_a_micro_batch() -> None:
    (batch,) = micro_batches([LONG, SHORT, MIDDLE], 10, pad=99)
    assert batch.samples == [LONG, MIDDLE, SHORT]
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5], [8, 9, 10, 6, 7]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 1]]
    assert batch.predictors.tolist() == [1, 2, 3, 5, 6, 8]
    assert batch.targets.tolist() == [3, 4, 5, 9, 10, 7]
    assert batch.sampler_logprobs.tolist() == [0, -0.25, -0.5, 0, -0.25, 0]
    assert batch.rollout.tolist() == [0, 0, 0, 1, 1, 2]
    assert batch.tokens == 10
    dtypes = {name: getattr(batch, name).dtype for name in ("ids", "positions", "predictors", "targets", "rollout")}
    assert set(dtypes.values()) == {np.dtype(np.int64)}
    assert batch.sampler_logprobs.dtype == np.float32


def test_rows_that_are_not_shared_are_padded_to_the_longest() -> None:
    first, second = micro_batches([SHORT, LONG, MIDDLE], 10, pad=99, share_rows=False)
    assert first.ids.tolist() == [[1, 2, 3, 4, 5], [8, 9, 10, 99, 99]]
    assert first.positions.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert first.predictors.tolist() == [1, 2, 3, 5, 6]
    assert first.tokens == 8
    assert second.ids.tolist() == [[6, 7]]


def test_a_shard_is_what_the_least_loaded_rank_takes_in_the_order_of_the_batch() -> None:
    samples = [SHORT, LONG, MIDDLE, SHORT]
    assert shard(samples, 0, 1) == samples
    assert [shard(samples, r, 2) for r in range(2)] == [[LONG, SHORT], [SHORT, MIDDLE]]
