"""How fast evidence fades and how much a prior is worth, read off what came true.

Every pair of a fading and a strength is a model that predicts each visited prompt's outcome before it is counted. Their
log likelihoods are added up (the prequential evidence of Dawid, 1984) and themselves forgotten slowly, so that the
choice follows a run; the posterior is that of the best pair. Prompts are drawn by what is believed, which does not bias
the comparison: all models predict the same outcomes, given the same past.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cures_core.config.curriculum import PosteriorConfig
from cures_core.curriculum import special
from cures_core.curriculum.beta import Floats

FADINGS = (0.9, 0.95, 0.97, 0.99, 0.997, 1.0)
STRENGTHS = (0.3, 1.0, 3.0, 10.0)
_FIRST = (0.97, 1.0)  # before anything came true
_PREFERENCE = 3.0  # nats
_FORGETTING = 0.99  # of log evidence, per step
SCORED = 256
"""Prompts of one update that are compared, at most: enough to tell models apart, and a bound to what it costs."""


class Memory:
    """The models in question, one where both settings are given, and their log evidence, shape (fadings, strengths)."""

    def __init__(self, cfg: PosteriorConfig) -> None:
        self.fadings = np.array(FADINGS if cfg.fading == "fitted" else [cfg.fading], dtype=np.float64)
        self.strengths = np.array(STRENGTHS if cfg.strength == "fitted" else [cfg.strength], dtype=np.float64)
        self.log_evidence = np.zeros((len(self.fadings), len(self.strengths)))
        self.log_evidence[np.argmin(abs(self.fadings - _FIRST[0])), np.argmin(abs(self.strengths - _FIRST[1]))] = 1.0

    @property
    def best(self) -> tuple[int, int]:
        """Index of the fading and of the strength that predicted best."""
        row, column = np.unravel_index(int(np.argmax(self.log_evidence)), self.log_evidence.shape)
        return int(row), int(column)

    @property
    def fading(self) -> float:
        return float(self.fadings[self.best[0]])

    @property
    def strength(self) -> float:
        return float(self.strengths[self.best[1]])

    def prefer(self, strength: float) -> None:
        """Start from the strength nearest to this one, until outcomes say otherwise."""
        self.log_evidence[:, np.argmin(abs(np.log(self.strengths / strength)))] += _PREFERENCE

    def forget(self, steps: int) -> None:
        """Let evidence for models fade by so many steps."""
        self.log_evidence *= _FORGETTING**steps

    def score(self, counts: tuple[Floats, Floats], rate: Floats, dead: Floats, outcomes: tuple[Floats, Floats]) -> None:
        """Add the log likelihood of what was told, under every model.

        `counts`: own right and wrong rollouts before, shape (prompts, fadings). `rate`: the prior's pass rate, `dead`:
        probability of being dead, `outcomes`: right and wrong rollouts now; shape (prompts,).
        """
        right, wrong = (x[:, :, None] for x in counts)
        a = right + self.strengths * rate[:, None, None]
        b = wrong + self.strengths * (1 - rate[:, None, None])
        s, f = (x[:, None, None] for x in outcomes)
        alive = np.exp(special.betaln(a + s, b + f) - special.betaln(a, b))
        seen = (1 - dead[:, None, None]) * alive + dead[:, None, None] * (s == 0)
        self.log_evidence += np.log(np.maximum(seen, 1e-12)).sum(axis=0)


def ages(step: int, touched: npt.NDArray[np.int64]) -> Floats:
    """Steps since each prompt was last counted, as floats."""
    return np.asarray((step - touched).astype(np.float64))
