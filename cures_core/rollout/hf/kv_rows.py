"""Knows the key-value cache of the rows being decoded: right-aligned rows in one window of columns, reusable slots."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache, DynamicLayer

KeysValues = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Prefix:
    """Prompts that went through the model, one row each, left-padded.

    `layers`: keys and values (rows, heads, columns, head size); `mask` (rows, columns): True at real tokens; `logits`
    (rows, vocabulary) of the token after the prompt.
    """

    layers: Sequence[KeysValues]
    mask: torch.Tensor
    logits: torch.Tensor


@dataclass(frozen=True, slots=True)
class Admission:
    """Prompts that enter slots: the one in row `source[i]` of `prefix`, `lengths[i]` tokens, goes into slot `slots[i]`,
    and its row of tokens is drawn with row i of `uniforms` (prompts, tokens)."""

    slots: NDArray[np.int64]
    prefix: Prefix
    source: NDArray[np.int64]
    lengths: NDArray[np.int64]
    uniforms: NDArray[np.float64]


class KvRows:
    """Cache of `rows` slots. Each slot holds one row; all rows end at the same column, so one write serves all.

    Order of calls: `place` prompts into slots, then for every token `mask`, the model's forward with `cache`,
    `advance`. `keep` drops rows. Every column left of `end` has been written in every row: masked columns are still
    multiplied by 0, which an uninitialised NaN would survive.
    """

    def __init__(self, rows: int, max_new_tokens: int) -> None:
        self.rows = rows
        self.max_new_tokens = max_new_tokens
        self.start = 0
        self.end = 0
        self._layers: list[_RowLayer] = []
        self._mask = torch.empty(0)
        self.cache = Cache(layers=[])

    @property
    def width(self) -> int:
        """Columns in the window [start, end): the length of the longest row."""
        return self.end - self.start

    def clear(self) -> None:
        """No row lives: the next prompts define the window."""
        self.start = self.end = 0

    def place(self, slots: torch.Tensor, prefix: Prefix, source: torch.Tensor, longest: int) -> None:
        """Copy row `source[i]` of `prefix` into slot `slots[i]`, for all i; `longest` is their longest prompt.

        It may not be longer than the longest living row: callers place longer prompts first.
        """
        if not self._layers:
            self._allocate(prefix, longest)
        if self.width == 0:
            self.end = longest
        where, last = slice(self.end - longest, self.end), slice(-longest, None)
        for layer, prompts in zip(self._layers, prefix.layers, strict=True):
            for buffer, states in zip(layer.buffers, prompts, strict=True):
                buffer[slots, :, where] = states[source, :, last]
        self._mask[slots] = False
        self._mask[slots, where] = prefix.mask[source, last]

    def mask(self, longest: int, shortest: int) -> torch.Tensor | None:
        """Attention mask (rows, width + 1) for the next token, or None where no living row is padded.

        `longest`, `shortest`: lengths of the living rows so far; the window is narrowed to the longest.
        """
        self.start = self.end - longest
        if self.end == self._mask.shape[1]:
            self._rebuild(None)
        self._mask[:, self.end] = True
        return None if shortest == longest else self._mask[:, self.start : self.end + 1]

    def advance(self) -> None:
        """The forward pass has written column `end`."""
        self.end += 1

    def keep(self, slots: torch.Tensor) -> None:
        """Keep only the rows in `slots`, in that order; they become slots 0, 1, ..."""
        self.rows = len(slots)
        self._rebuild(slots)

    def _room(self, width: int) -> int:
        """Free columns to allocate beside `width`: half as much again keeps copying rare and memory bounded."""
        return min(self.max_new_tokens, max(32, width // 2))

    def _allocate(self, prefix: Prefix, width: int) -> None:
        capacity = width + self._room(width)
        for states in prefix.layers:
            keys, values = (s.new_empty(self.rows, s.shape[1], capacity, s.shape[3]) for s in states)
            keys[:, :, :width] = 0
            values[:, :, :width] = 0
            # Weakly: dropped, its memory is free at once, not at the next full garbage collection.
            self._layers.append(_RowLayer(weakref.proxy(self), (keys, values)))
        self._mask = prefix.mask.new_zeros(self.rows, capacity)
        self.cache = Cache(layers=list(self._layers))

    def _rebuild(self, rows: torch.Tensor | None) -> None:
        """Copy the window of `rows` (None: all) to the front of new buffers with room for more columns."""
        for layer in self._layers:
            keys, values = layer.buffers
            layer.buffers = self._copied(keys, rows), self._copied(values, rows)
        mask = self._mask[:, self.start : self.end]
        mask = mask if rows is None else mask[rows]
        self._mask = torch.nn.functional.pad(mask, (0, self._room(self.width)))
        self.start, self.end = 0, self.width

    def _copied(self, buffer: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        window = buffer[:, :, self.start : self.end]
        capacity = self.width + self._room(self.width)
        copy = buffer.new_empty(self.rows, buffer.shape[1], capacity, buffer.shape[3])
        copy[:, :, : self.width] = window if rows is None else window[rows]
        return copy


class _RowLayer(DynamicLayer):
    """One layer's keys and values, (rows, heads, capacity, head size), written in place.

    `transformers`' own layer copies all it holds at every token.
    """

    def __init__(self, owner: KvRows, buffers: KeysValues) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.owner = owner
        self.buffers = buffers
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> KeysValues:
        start, end = self.owner.start, self.owner.end
        keys, values = self.buffers
        keys[:, :, end : end + 1] = key_states
        values[:, :, end : end + 1] = value_states
        return keys[:, :, start : end + 1], values[:, :, start : end + 1]

    def get_seq_length(self) -> int:
        return self.owner.width
