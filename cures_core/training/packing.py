"""Which rollouts go through the model together: rows of equal width, several rollouts a row, within a token budget."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cures_core.training.advantages import Sample

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MicroBatch:
    """Arrays of one forward pass: R rows of W columns, N completion tokens of S rollouts.

    `ids`, `positions` (R, W): every rollout of a row starts at position 0 again, which keeps attention inside it.
    `predictors` (N,): index into the R * W columns of the token before each completion token; `targets` (N,);
    `sampler_logprobs` (N,) float32; `rollout` (N,) numbers `samples`.
    """

    samples: list[Sample]
    ids: Ints
    positions: Ints
    predictors: Ints
    targets: Ints
    sampler_logprobs: npt.NDArray[np.float32]
    rollout: Ints

    @property
    def tokens(self) -> int:
        """Tokens of prompts and completions, padding not counted."""
        return sum(length(s) for s in self.samples)


def length(sample: Sample) -> int:
    """Tokens of prompt and completion."""
    return len(sample.rollout.prompt_ids) + len(sample.rollout.token_ids)


def pack(lengths: Sequence[int], max_tokens: int, *, share_rows: bool = True) -> list[list[list[int]]]:
    """Micro-batches of rows of indices. A micro-batch is as wide as its longest rollout; rows times width is at most
    `max_tokens`, unless one rollout alone is longer. A row takes the longest rollout left, then the longest that still
    fits, and so on (best fit decreasing); without `share_rows` one rollout a row. Equal input, equal output.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], -i))
    left = [lengths[i] for i in order]
    batches: list[list[list[int]]] = []
    while left:
        width = left[-1]
        rows: list[list[int]] = []
        while left and len(rows) < max(1, max_tokens // width):
            row, room = [order.pop()], width - left.pop()
            while share_rows and (at := bisect_right(left, room)):
                row.append(order.pop(at - 1))
                room -= left.pop(at - 1)
            rows.append(row)
        batches.append(rows)
    return batches


def micro_batches(samples: Sequence[Sample], max_tokens: int, pad: int, *, share_rows: bool = True) -> list[MicroBatch]:
    """All samples, each in one micro-batch of at most `max_tokens` columns (a longer rollout goes alone)."""
    packed = pack([length(s) for s in samples], max_tokens, share_rows=share_rows)
    return [_arrays([[samples[i] for i in row] for row in rows], pad) for rows in packed]


def shard(samples: Sequence[Sample], rank: int, world: int) -> list[Sample]:
    """The share of process `rank` of `world`: longest first, each to the process with the fewest tokens so far."""
    if world == 1:
        return list(samples)
    loads = [0] * world
    mine: list[int] = []
    for i in sorted(range(len(samples)), key=lambda i: (-length(samples[i]), i)):
        to = loads.index(min(loads))
        loads[to] += length(samples[i])
        if to == rank:
            mine.append(i)
    return [samples[i] for i in sorted(mine)]


def _arrays(rows: Sequence[Sequence[Sample]], pad: int) -> MicroBatch:
    width = sum(length(s) for s in rows[0])
    width = max(width, *(sum(length(s) for s in row) for row in rows))
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    positions = np.zeros_like(ids)
    samples: list[Sample] = []
    predictors, targets, logprobs, numbers = [], [], [], []
    for r, row in enumerate(rows):
        start = 0
        for sample in row:
            rollout = sample.rollout
            end = start + length(sample)
            ids[r, start:end] = rollout.prompt_ids + rollout.token_ids
            # The padding behind a row's last rollout goes on counting: nothing before it can see it.
            positions[r, start:] = np.arange(width - start)
            first = r * width + start + len(rollout.prompt_ids) - 1
            predictors.append(np.arange(first, first + len(rollout.token_ids)))
            targets.append(rollout.token_ids)
            logprobs.append(rollout.logprobs)
            numbers.append(np.full(len(rollout.token_ids), len(samples)))
            samples.append(sample)
            start = end
    return MicroBatch(
        samples=samples,
        ids=ids,
        positions=positions,
        predictors=_flat(predictors, np.int64),
        targets=_flat(targets, np.int64),
        sampler_logprobs=_flat(logprobs, np.float32),
        rollout=_flat(numbers, np.int64),
    )


def _flat(parts: Sequence[Any], dtype: Any) -> Any:
    return np.concatenate([np.asarray(part, dtype=dtype) for part in parts])
