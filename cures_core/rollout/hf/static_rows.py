"""Knows how rows are decoded in a few fixed shapes, whose steps a GPU replays without Python launching kernels."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache, DynamicLayer

from cures_core.config.rollout import HfRolloutConfig
from cures_core.rollout.hf.causal_lm import CausalLM
from cures_core.rollout.hf.eager_rows import Drawn
from cures_core.rollout.hf.graphs import StepGraphs
from cures_core.rollout.hf.grouped_attention import grouped_attention
from cures_core.rollout.hf.kv_rows import Admission, KeysValues, Prefix
from cures_core.rollout.hf.sampling import draw

STEPS_PER_LOOK = 4
"""Steps between two looks at what was drawn. Each look waits for the device; a row that has ended is computed on until
the next one."""

_FEWEST_ROWS, _FEWEST_COLUMNS = 16, 32


class StaticRows:
    """`rows` slots with `columns` columns each, allocated once; a step works on the first 16, 32, 64 ... slots and 32,
    48, 64, 96 ... columns that hold all living rows. See `Rows`.

    Every row starts at column 0 and writes at its own length, so that a slot is free for the next prompt without a
    word to the others. All that a step reads and writes stays where it is from call to call, tokens and lengths
    included: on CUDA a step of one shape is captured once and then replayed.
    """

    drop_share = 1 / 2
    """Nothing is saved before the living rows fit into half as many slots."""

    def __init__(self, rows: int, columns: int, max_new_tokens: int, device: torch.device) -> None:
        self.rows, self.columns = rows, _columns(columns)
        self.tokens = torch.zeros(rows, dtype=torch.int64, device=device)
        self.lengths = torch.zeros_like(self.tokens)
        self.count = torch.zeros_like(self.tokens)
        self.logprobs = torch.zeros(rows, device=device)
        self.uniforms = torch.zeros(rows, max_new_tokens, dtype=torch.float64, device=device)
        self.drawn = torch.zeros(STEPS_PER_LOOK, rows, dtype=torch.int64, device=device)
        self.scores = torch.zeros(STEPS_PER_LOOK, rows, device=device)
        self.numbers = torch.arange(max(rows, self.columns), device=device)
        self.layers: list[_StaticLayer] = []
        self.cache = Cache(layers=[])
        # Known weakly to what it holds: dropped, its memory is free at once, not at the next full garbage collection.
        self._weakly: StaticRows = weakref.proxy(self)
        self.graphs = StepGraphs(partial(StaticRows._step, self._weakly), device)
        self.where = torch.empty(0)
        self._widest = 0

    def serves(self, rows: int, columns: int, max_new_tokens: int) -> bool:
        """Is there room for that many? Else others have to be made."""
        return rows <= self.rows and columns <= self.columns and max_new_tokens <= self.uniforms.shape[1]

    @property
    def bytes(self) -> int:
        """Memory of keys and values."""
        return sum(buffer.nbytes for layer in self.layers for buffer in layer.buffers)

    def use(self, lm: CausalLM, cfg: HfRolloutConfig) -> None:
        """Decode with this policy and these settings from now on. A step that read weights elsewhere is forgotten."""
        self.lm, self.cfg = lm, cfg
        self.graphs.expect(tuple(p.data_ptr() for p in lm.model.parameters()))

    def clear(self) -> None:
        # What is masked is multiplied by 0, which a NaN that diverged weights once left here would survive.
        for layer in self.layers:
            for buffer in layer.buffers:
                buffer.zero_()

    def place(self, admitted: Admission) -> Drawn:
        device, prefix = self.tokens.device, admitted.prefix
        where, rows, fed, numbers = (
            torch.from_numpy(array).to(device)
            for array in (admitted.slots, admitted.source, admitted.lengths, admitted.uniforms)
        )
        if not self.layers:
            self._allocate(prefix)
        longest, width = int(admitted.lengths.max()), prefix.mask.shape[1]
        # Prompts come with their padding on the left, and go to column 0 without it.
        columns = (width - fed.unsqueeze(1) + self.numbers[:longest]).clamp_(max=width - 1)
        for layer, prompts in zip(self.layers, prefix.layers, strict=True):
            for buffer, states in zip(layer.buffers, prompts, strict=True):
                buffer[where, :, :longest] = states[rows.unsqueeze(1), :, columns].transpose(1, 2)
        tokens, logprobs = draw(
            prefix.logits[rows], numbers[:, 0], temperature=self.cfg.temperature, top_p=self.cfg.top_p
        )
        self.tokens[where], self.lengths[where], self.count[where] = tokens, fed, 1
        self.uniforms[where, : numbers.shape[1]] = numbers
        self._widest = max(self._widest, longest)
        return tokens.unsqueeze(0).cpu().numpy(), logprobs.unsqueeze(0).cpu().numpy()

    def step(self, living: NDArray[np.int64], fed: NDArray[np.int64], count: NDArray[np.int64]) -> Drawn:
        steps = min(STEPS_PER_LOOK, int((self.cfg.max_new_tokens - count[living]).max()))
        rows = min(_rows(len(fed)), self.rows)
        columns = min(_columns(int(fed[living].max()) + steps), self.columns)
        self._widest = max(self._widest, columns)
        with _each_place_once(self.tokens.device):
            for at in range(steps):
                self.graphs.run(rows, columns, self.cfg.temperature, self.cfg.top_p)
                self.drawn[at, :rows] = self.tokens[:rows]
                self.scores[at, :rows] = self.logprobs[:rows]
        return self.drawn[:steps, : len(fed)].cpu().numpy(), self.scores[:steps, : len(fed)].cpu().numpy()

    def keep(self, slots: NDArray[np.int64]) -> None:
        kept = torch.from_numpy(slots).to(self.tokens.device)
        for layer in self.layers:
            for buffer in layer.buffers:
                buffer[: len(kept), :, : self._widest] = buffer[kept, :, : self._widest]
        for state in (self.tokens, self.lengths, self.count, self.uniforms):
            state[: len(kept)] = state[kept]

    def logits(self, rows: int, columns: int) -> torch.Tensor:
        """Logits (rows, vocabulary) after the last tokens of the first slots, whose keys and values are written."""
        # The length of a free slot goes on counting: beyond the last column or the context any place serves.
        self.where = self.lengths[:rows].clamp(max=columns - 1)
        for layer in self.layers:
            layer.window(rows, columns)
        # Added to the scores: what every attention takes, and made once for all layers.
        dtype = self.layers[0].buffers[0].dtype
        mask = torch.zeros(rows, columns, dtype=dtype, device=self.where.device)
        mask.masked_fill_(self.numbers[:columns] > self.where.unsqueeze(1), torch.finfo(dtype).min)
        context = self.lm.context or self.columns
        with grouped_attention(self.lm.model):
            return self.lm.step(self.tokens[:rows], self.where.clamp(max=context - 1), mask[:, None, None], self.cache)

    def _step(self, rows: int, columns: int, temperature: float, top_p: float) -> None:
        """One token for each of the first slots. Nothing here depends on values on the host."""
        logits = self.logits(rows, columns)
        column = self.count[:rows].clamp(max=self.uniforms.shape[1] - 1).unsqueeze(1)
        uniforms = self.uniforms[:rows].gather(1, column).squeeze(1)
        tokens, logprobs = draw(logits, uniforms, temperature=temperature, top_p=top_p)
        self.tokens[:rows] = tokens
        self.logprobs[:rows] = logprobs
        self.lengths[:rows] += 1
        self.count[:rows] += 1

    def _allocate(self, prefix: Prefix) -> None:
        for keys, values in prefix.layers:
            buffers = (self._zeros(keys), self._zeros(values))
            self.layers.append(_StaticLayer(self._weakly, buffers))
        self.cache = Cache(layers=list(self.layers))

    def _zeros(self, states: torch.Tensor) -> torch.Tensor:
        return states.new_zeros(self.rows, states.shape[1], self.columns, states.shape[3])


class _StaticLayer(DynamicLayer):
    """One layer's keys and values, (rows, heads, columns, head size); a step sees a window from their first element."""

    def __init__(self, owner: StaticRows, buffers: KeysValues) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.owner = owner
        self.buffers = buffers
        self.is_initialized = True

    def window(self, rows: int, columns: int) -> None:
        self.keys, self.values = (buffer[:rows, :, :columns] for buffer in self.buffers)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> KeysValues:
        assert self.keys is not None
        assert self.values is not None
        rows = self.owner.numbers[: len(self.keys)]
        self.keys[rows, :, self.owner.where] = key_states[:, :, 0]
        self.values[rows, :, self.owner.where] = value_states[:, :, 0]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        assert self.keys is not None
        return int(self.keys.shape[2]) - 1


def _rows(number: int) -> int:
    """The smallest power of two that holds `number` rows."""
    return max(_FEWEST_ROWS, 1 << (number - 1).bit_length())


def _columns(number: int) -> int:
    """The smallest 2^k or 1.5 * 2^k that holds `number` columns: at most a third of them is computed in vain."""
    power = 1 << (number - 1).bit_length()
    return max(_FEWEST_COLUMNS, power * 3 // 4 if number <= power * 3 // 4 else power)


@contextmanager
def _each_place_once(device: torch.device) -> Iterator[None]:
    """Let CUDA write keys and values without sorting the places first, as torch's deterministic mode does: no place
    occurs twice, so there is no order to fix."""
    if device.type != "cuda" or not torch.are_deterministic_algorithms_enabled():
        yield
        return
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=only_warned)
