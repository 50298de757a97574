"""Early abort: completions are cut where right ones hardly ever are that long (an idea of DUET, arXiv 2605.08441).

Of DUET this is the half that saves tokens within a rollout; how many rollouts a prompt gets is a matter of the
curriculum. Ours, where only the paper's abstract was read: the limit is a quantile of the lengths of the last right
completions, and a margin.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cures_core.config.rollout import RolloutConfig
from cures_core.rollout import RolloutEngine
from cures_core.terms import Group, Outcome, Request, Rollout

_REMEMBERED, _FEWEST = 512, 64  # right completions
_MARGIN = 1.25


class AbortingEngine:
    """An engine whose limit of tokens follows the right completions that it is told of; never above `cfg`'s own."""

    def __init__(self, inner: RolloutEngine, quantile: float) -> None:
        self._inner, self._quantile = inner, quantile
        self.cfg = inner.cfg
        self._lengths: deque[int] = deque(maxlen=_REMEMBERED)

    @property
    def limit(self) -> int:
        """Tokens of a completion at most."""
        most = self.cfg.max_new_tokens
        if len(self._lengths) < _FEWEST:
            return most
        return min(most, int(np.ceil(_MARGIN * np.quantile(self._lengths, self._quantile))))

    def learn(self, groups: Sequence[Group]) -> None:
        """Remember how long the right ones were."""
        for group in groups:
            for rollout, verdict in zip(group.rollouts, group.verdicts, strict=True):
                if verdict.outcome is Outcome.CORRECT:
                    self._lengths.append(len(rollout.token_ids))

    def generate(
        self, requests: Sequence[Request], *, progress: Callable[[int, int], None] | None = None
    ) -> list[list[Rollout]]:
        self._inner.retune(self.cfg.model_copy(update={"max_new_tokens": self.limit}))
        try:
            return self._inner.generate(requests, progress=progress)
        finally:
            self._inner.retune(self.cfg)

    def sync(self, model: Any) -> None:
        self._inner.sync(model)

    def sleep(self) -> None:
        self._inner.sleep()

    def retune(self, cfg: RolloutConfig) -> None:
        self.cfg = cfg
        self._inner.retune(cfg)

    def close(self) -> None:
        self._inner.close()
