"""Second moments of each prompt's score, from last-layer gradients that the training pass has at hand.

The score of a rollout with respect to the output layer is G = sum_t d_t h_t', d_t = onehot(y_t) - softmax (V,), h_t the
layer's input (D,). It is never formed: d and h are projected by random signs to `WIDTH` dimensions each, and the
Frobenius products of the small matrices are unbiased for those of the large ones. Cost: one product with a (V, WIDTH)
matrix for each token, against the (V, D) of the layer itself; no generation and no backward pass of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cures_core.terms import Moments

Floats = npt.NDArray[np.float64]
WIDTH = 24
_SEED = 0x4D4F4D
_TOKENS = 4096  # at a time: their outer products take WIDTH^2 floats each


class Sketcher:
    """Projects the scores of rollouts; deterministic for given sizes."""

    def __init__(self, vocabulary: int, hidden: int) -> None:
        rng = np.random.default_rng([_SEED, vocabulary, hidden])
        self._rows = (rng.integers(0, 2, (vocabulary, WIDTH), dtype=np.int8) * 2 - 1).astype(np.float32)
        self._columns = (rng.integers(0, 2, (hidden, WIDTH), dtype=np.int8) * 2 - 1).astype(np.float32)
        self._on_device: tuple[Any, Any] | None = None

    def sketch(self, logits_NV: Any, hidden_ND: Any, targets_N: Any, rollout_N: Any, num: int) -> Floats:
        """Projected scores (num, WIDTH, WIDTH) of the rollouts that N tokens belong to, by number.

        `logits_NV` at the sampling temperature; `hidden_ND` is what the output layer saw.
        """
        import torch

        if self._on_device is None:
            device = logits_NV.device
            self._on_device = torch.from_numpy(self._rows).to(device), torch.from_numpy(self._columns).to(device)
        rows, columns = self._on_device
        total = torch.zeros((num, WIDTH, WIDTH), device=logits_NV.device)
        with torch.no_grad():
            for start in range(0, len(targets_N), _TOKENS):
                part = slice(start, start + _TOKENS)
                expected_NW = torch.softmax(logits_NV[part].float(), dim=-1) @ rows
                residual_NW = rows[targets_N[part]] - expected_NW
                outer_NWW = residual_NW[:, :, None] * (hidden_ND[part].float() @ columns)[:, None, :]
                total.index_add_(0, rollout_N[part], outer_NWW)
        return np.asarray(total.cpu().double().numpy() / WIDTH)


def group_moments(sketches: Floats, right: npt.NDArray[np.bool_]) -> Moments | None:
    """Of one group's projected scores (n, WIDTH, WIDTH); None with fewer than two right or two wrong ones.

    Squared means are means of products of different rollouts, which leaves the noise of single ones out.
    """
    if right.sum() < 2 or (~right).sum() < 2:
        return None
    flat = sketches.reshape(len(sketches), -1)
    products = flat @ flat.T
    sides = [np.flatnonzero(right), np.flatnonzero(~right)]
    squares = [float(np.mean(np.diag(products)[side])) for side in sides]
    means = []
    for side in sides:
        block = products[np.ix_(side, side)]
        means.append(float((block.sum() - np.trace(block)) / (len(side) * (len(side) - 1))))
    cross = float(products[np.ix_(*sides)].mean())
    return Moments(squares[0], squares[1], means[0] + means[1] - 2 * cross)


def by_prompt(prompts: Sequence[str], sketches: Floats, right: npt.NDArray[np.bool_]) -> Mapping[str, Moments]:
    """Moments of every prompt that has enough rollouts of both kinds; one entry of the arguments for each rollout."""
    names, found = np.array(prompts), {}
    for name in dict.fromkeys(prompts):
        rows = np.flatnonzero(names == name)
        moments = group_moments(sketches[rows], right[rows])
        if moments is not None:
            found[name] = moments
    return found
