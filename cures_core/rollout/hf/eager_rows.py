"""Knows how rows are decoded in whatever shapes they have at the moment: nothing is padded to a bucket or captured."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cures_core.config.rollout import HfRolloutConfig
from cures_core.rollout.hf.causal_lm import CausalLM
from cures_core.rollout.hf.kv_rows import Admission, KvRows
from cures_core.rollout.hf.sampling import draw

Drawn = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Tokens and their log-probabilities, both (steps, rows)."""


class EagerRows:
    """`rows` slots over a window of columns that is exactly as wide as the longest living row. See `Rows`."""

    drop_share = 1 / 4
    """Dropping copies the living rows, and saves the same share of every later step."""

    def __init__(self, lm: CausalLM, cfg: HfRolloutConfig, rows: int) -> None:
        self.lm, self.cfg = lm, cfg
        self.kv = KvRows(rows, cfg.max_new_tokens)
        self.last_tokens = torch.zeros(rows, dtype=torch.int64, device=lm.device)
        self.uniforms = np.zeros((rows, cfg.max_new_tokens))

    def clear(self) -> None:
        self.kv.clear()

    def place(self, admitted: Admission) -> Drawn:
        where, rows = self._to_device(admitted.slots), self._to_device(admitted.source)
        self.kv.place(where, admitted.prefix, rows, int(admitted.lengths.max()))
        self.uniforms[admitted.slots] = admitted.uniforms
        tokens, logprobs = self._draw(admitted.prefix.logits[rows], admitted.uniforms[:, 0])
        self.last_tokens[where] = tokens
        return _on_host(tokens, logprobs)

    def step(self, living: NDArray[np.int64], fed: NDArray[np.int64], count: NDArray[np.int64]) -> Drawn:
        mask = self.kv.mask(int(fed[living].max()), int(fed[living].min()))
        logits = self.lm.step(self.last_tokens, self._to_device(fed), mask, self.kv.cache)
        self.kv.advance()
        # A free slot may be full: any number serves.
        column = np.minimum(count, self.uniforms.shape[1] - 1)
        self.last_tokens, logprobs = self._draw(logits, self.uniforms[np.arange(len(column)), column])
        return _on_host(self.last_tokens, logprobs)

    def keep(self, slots: NDArray[np.int64]) -> None:
        kept = self._to_device(slots)
        self.kv.keep(kept)
        self.last_tokens, self.uniforms = self.last_tokens[kept], self.uniforms[slots]

    def _draw(self, logits: torch.Tensor, uniforms: NDArray[np.float64]) -> tuple[torch.Tensor, torch.Tensor]:
        return draw(logits, self._to_device(uniforms), temperature=self.cfg.temperature, top_p=self.cfg.top_p)

    def _to_device(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.lm.device)


def _on_host(tokens: torch.Tensor, logprobs: torch.Tensor) -> Drawn:
    return tokens.unsqueeze(0).cpu().numpy(), logprobs.unsqueeze(0).cpu().numpy()
