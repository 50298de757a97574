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


class Sketcher:
    """Projects the scores of rollouts; deterministic for given sizes."""

    def __init__(self, vocabulary: int, hidden: int) -> None:
        rng = np.random.default_rng([_SEED, vocabulary, hidden])
        self._rows = (rng.integers(0, 2, (vocabulary, WIDTH), dtype=np.int8) * 2 - 1).astype(np.float32)
        self._columns = (rng.integers(0, 2, (hidden, WIDTH), dtype=np.int8) * 2 - 1).astype(np.float32)
        self._on_device: tuple[Any, Any] | None = None

    def sketch(self, logits_RTV: Any, hidden_RTD: Any, chosen_RT: Any, mask_RT: Any) -> Floats:
        """Projected scores (R, WIDTH, WIDTH) of rollouts; logits at the sampling temperature, masked tokens count."""
        import torch

        if self._on_device is None:
            device = logits_RTV.device
            self._on_device = torch.from_numpy(self._rows).to(device), torch.from_numpy(self._columns).to(device)
        rows, columns = self._on_device
        with torch.no_grad():
            expected_RTW = torch.softmax(logits_RTV.float(), dim=-1) @ rows
            residual_RTW = torch.where(mask_RT[..., None], rows[chosen_RT] - expected_RTW, 0.0)
            projected = torch.einsum("rtw,rtv->rwv", residual_RTW, hidden_RTD.float() @ columns)
            return np.asarray(projected.cpu().double().numpy() / WIDTH)


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
