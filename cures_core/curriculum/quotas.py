"""Knows how many prompts of each source a step draws where their shares are bounded, and draws them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cures_core.config.curriculum import SourceQuota
from cures_core.curriculum.beta import Floats
from cures_core.curriculum.posterior import Ints
from cures_core.curriculum.sampling import smallest
from cures_core.errors import ConfigError

_ENOUGH = 1e-9


class Quotas:
    """Groups of rows: one a source with a quota, and one of all others, which has no bounds.

    `carry` is what a group has been drawn too little so far, in prompts (negative: too much): state of a run. What a
    step cannot draw in fractions of prompts, later steps make up for.
    """

    def __init__(self, quotas: Sequence[SourceQuota], sources: Sequence[str], num: int) -> None:
        """`sources` of the rows; `num`: prompts of a step. Raises `ConfigError` for quotas that cannot be held."""
        self.names = [quota.source for quota in quotas]
        place = {name: i for i, name in enumerate(self.names)}
        self._group = np.array([place.get(source, len(place)) for source in sources], dtype=np.int64)
        self._low = np.array([*(quota.min for quota in quotas), 0.0])
        self._high = np.array([*(quota.max for quota in quotas), 1.0])
        self.carry = np.zeros(len(self._low))
        self._check(sources, num)

    def _check(self, sources: Sequence[str], num: int) -> None:
        sizes = np.bincount(self._group, minlength=len(self._low))
        for name, size, low in zip(self.names, sizes, self._low, strict=False):
            if not size:
                known = ", ".join(map(repr, sorted(set(sources))[:12]))
                raise ConfigError(f"curriculum.quotas: no prompt has the source {name!r}; sources are {known}")
            if low * num > size:
                raise ConfigError(
                    f"curriculum.quotas: {low:g} of {num} prompts a step are more than the {size} that {name!r} has: "
                    "lower min, or curriculum.prompts_per_step"
                )
        if (most := self._high[sizes > 0].sum()) < 1 - _ENOUGH:
            raise ConfigError(
                f"curriculum.quotas: the largest shares sum to {most:g}, and there are no other sources: raise a max"
            )

    def shares(self, natural: Floats, room: Floats) -> Floats:
        """Share of each group: what the weights give it (`natural`, sums to 1), within the bounds and `room`, its
        largest possible share. Sums to 1, or to what there is room for.

        What the bounds move is taken from, and given to, the others in proportion: clip(c * natural), with the c that
        makes the sum 1.
        """
        high = np.minimum(self._high, room)
        low = np.minimum(self._low, high)
        if high.sum() <= 1:
            return np.asarray(high, dtype=np.float64)
        natural = np.maximum(natural, _ENOUGH)
        least, most = 0.0, float(1 / natural.min())
        for _ in range(100):
            middle = (least + most) / 2
            if np.clip(middle * natural, low, high).sum() < 1:
                least = middle
            else:
                most = middle
        return np.asarray(np.clip(most * natural, low, high), dtype=np.float64)

    def counts(self, natural: Floats, sizes: Ints, num: int) -> Ints:
        """Prompts of each group for a draw of at most `num`; the carry follows."""
        share = self.shares(natural, sizes / num)
        num = min(num, int(round(share.sum() * num, 6)))
        wanted = share * (num / max(share.sum(), _ENOUGH)) + self.carry
        counts: Ints = np.asarray(np.clip(np.floor(wanted + _ENOUGH), 0, sizes), dtype=np.int64)
        while (left := num - int(counts.sum())) != 0:
            step = 1 if left > 0 else -1
            can = (counts < sizes) & (share > 0) if left > 0 else counts > 0
            if not can.any():
                break
            counts[int(np.argmax(np.where(can, step * (wanted - counts), -np.inf)))] += step
        self.carry = wanted - counts
        return counts

    def bounded(self, p: Floats, num: int) -> Floats:
        """Probabilities `p` of all rows with the shares of their groups put within the bounds, for `num` prompts."""
        groups = len(self._low)
        natural = np.bincount(self._group, p, groups) / p.sum()
        share = self.shares(natural, np.bincount(self._group, minlength=groups) / num)
        factor = share / np.maximum(natural, _ENOUGH)
        return np.asarray(p * factor[self._group], dtype=np.float64)

    def draw(self, p: Floats, rows: Ints, num: int, rng: np.random.Generator) -> Ints:
        """At most `num` of `rows` without replacement, in each group in proportion to these rows' `p`; ascending."""
        num = min(num, len(rows))
        if not num:
            return np.zeros(0, dtype=np.int64)
        group, groups = self._group[rows], len(self._low)
        sizes = np.bincount(group, minlength=groups)
        counts = self.counts(np.bincount(group, p, groups) / p.sum(), sizes, num)
        finish = rng.standard_exponential(len(rows)) / p
        drawn = []
        for k, count in enumerate(counts):
            own = np.flatnonzero(group == k)
            drawn.append(own if count >= len(own) else own[smallest(finish[own], int(count))])
        return np.sort(rows[np.concatenate(drawn)])
