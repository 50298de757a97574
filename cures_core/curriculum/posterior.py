"""The pass-rate posterior of every prompt: counts that fade, a prior pooled by group, and suspicion of dead prompts.

Beta(a, b) with a = S + k m, b = F + k (1 - m): S and F are the prompt's own counts, m the pass rate of its group
(source x level) shrunk to that of the set, k the prior's strength. Counts fade by a factor each step, because the
policy moves; the prior does not. Both the factor and k are those that have predicted best (`memory`).

A prompt is *dead* if no policy will solve it; each visit without a success makes that more likely, one success rules it
out for good, and what a dead prompt fails says nothing about its group. How many are dead may be read off those that
have been visited (`dead_prior`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cures_core.config.curriculum import PosteriorConfig
from cures_core.curriculum import special
from cures_core.curriculum.beta import Floats, fit_prior, log_all_wrong
from cures_core.curriculum.model_selection import SCORED, Memory, ages
from cures_core.errors import ConfigError
from cures_core.prompts import PromptSet

Ints = npt.NDArray[np.int64]
NEVER = -1
ALIVE = -50.0  # log odds of being dead, for good
_MOST_EVIDENCE = 12.0  # of one visit for being dead, in log odds
_FIRST_DEAD_PRIOR = 0.1  # where the share is fitted, before anything came true
_MADE_UP = 20.0  # prompts at that share, beside those seen
_EM_STEPS = 25
_STATE = ("right", "wrong", "touched", "dead_log_odds", "group_successes", "group_failures")


class Posterior:
    """Rows in order of prompt id. Arrays of shape (num prompts,) unless said otherwise; times are optimizer steps."""

    def __init__(
        self,
        ids: npt.NDArray[np.bytes_],
        groups: Ints,
        group_names: Sequence[tuple[str, str]],
        cfg: PosteriorConfig,
    ) -> None:
        """`ids` ascending; `groups` indexes `group_names`, pairs of (source, level)."""
        num = len(ids)
        self.ids, self.groups, self.group_names, self.cfg = ids, groups, list(group_names), cfg
        self.memory = Memory(cfg)
        # As of `touched`, under every fading in question; shape (prompts, fadings).
        self.right, self.wrong = np.zeros((2, num, len(self.memory.fadings)))
        self.touched = np.full(num, NEVER, dtype=np.int64)
        self.dead_prior: float = _FIRST_DEAD_PRIOR if cfg.dead_prior == "fitted" else cfg.dead_prior
        """Share of dead prompts before a prompt's own evidence: the configured one, or as fitted so far."""
        # Log odds at the first of these, so that a fitted share moves all of them without being written to each.
        self._first_dead_prior = self.dead_prior
        self.first_dead_odds = _log_odds(self.dead_prior)
        """Log odds that `dead_log_odds` start from; `ALIVE` where nothing is suspected."""
        self.dead_log_odds = np.full(num, self.first_dead_odds)
        self.group_successes, self.group_failures = np.zeros(len(group_names)), np.zeros(len(group_names))
        self.step = 0
        self.predicted: tuple[Floats, float] | None = None
        """What a predictor says (see `set_prior`): logits of pass rates against those of the groups, and their mass."""
        self.archive: pa.Table | None = None
        """Rows of prompts that have left the set (see `posterior_file`), kept for their return."""

    @classmethod
    def fresh(cls, prompts: PromptSet, cfg: PosteriorConfig) -> Posterior:
        """No evidence for anything."""
        pairs = list(zip(prompts.column("source"), prompts.column("level"), strict=True))
        names = sorted(set(pairs))
        index = {name: i for i, name in enumerate(names)}
        groups = np.fromiter((index[pair] for pair in pairs), dtype=np.int64, count=len(pairs))
        return cls(encoded(prompts.ids), groups, names, cfg)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def successes(self) -> Floats:
        """Right rollouts of each prompt as of the step in which it was last counted; a view."""
        return self.right[:, self.memory.best[0]]

    @property
    def failures(self) -> Floats:
        """Wrong ones."""
        return self.wrong[:, self.memory.best[0]]

    def rows(self, ids: Sequence[str]) -> Ints:
        """Row numbers of prompts. Raises `ConfigError` for an id that is not there."""
        wanted = encoded(ids) if len(ids) else np.zeros(0, dtype=self.ids.dtype)
        found = np.minimum(np.searchsorted(self.ids, wanted), max(0, len(self) - 1))
        if len(wanted) and (not len(self) or np.any(self.ids[found] != wanted)):
            bad = wanted[0] if not len(self) else wanted[self.ids[found] != wanted][0]
            raise ConfigError(f"prompt {bad.decode()} is not in this posterior of {len(self)} prompts")
        return found.astype(np.int64)

    def update(self, ids: Sequence[str], successes: npt.ArrayLike, failures: npt.ArrayLike, step: int) -> None:
        """Add evidence of `step`: right and wrong rollouts by prompt. An id that occurs twice adds up.

        Cost grows with the number of ids, not of prompts. Raises `ConfigError` for unknown ids, negative counts, and
        a step before the last one.
        """
        right, wrong = np.asarray(successes, dtype=np.float64), np.asarray(failures, dtype=np.float64)
        if step < self.step:
            raise ConfigError(f"evidence of step {step} comes after that of step {self.step}")
        if np.any(right < 0) or np.any(wrong < 0):
            raise ConfigError("counts of rollouts must not be negative")
        rows, where = np.unique(self.rows(ids), return_inverse=True)
        right, wrong = (np.bincount(where, counts, len(rows)).astype(np.float64) for counts in (right, wrong))
        self._advance(step)
        seen = right + wrong > 0
        rows, right, wrong = rows[seen], right[seen], wrong[seen]
        a, b = self.parameters(rows)
        before = self._all_counts(rows)
        self._score(rows, before, right, wrong)
        self._suspect(rows, right, wrong, a, b)
        self.right[rows] = before[0] + right[:, None]
        self.wrong[rows] = before[1] + wrong[:, None]
        self.touched[rows] = step
        self.fit_dead_prior()
        num = len(self.group_names)
        self.group_successes += np.bincount(self.groups[rows], right, num)
        self.group_failures += np.bincount(self.groups[rows], wrong * (1 - self.dead(rows)), num)

    def own_counts(self, rows: Ints | slice = slice(None)) -> tuple[Floats, Floats]:
        """Right and wrong rollouts of the given rows, faded to the current step."""
        faded = self._fading(rows)
        return self.successes[rows] * faded, self.failures[rows] * faded

    def parameters(self, rows: Ints | slice = slice(None)) -> tuple[Floats, Floats]:
        """(a, b) of the given rows at the current step."""
        right, wrong = self.own_counts(rows)
        rate = self._prior_rates(rows)
        fitted = self.cfg.strength == "fitted"
        strength = self.memory.strength if self.predicted is None or fitted else self.predicted[1]
        return right + strength * rate, wrong + strength * (1 - rate)

    def set_prior(self, rates: Floats, strength: float) -> None:
        """Take predicted pass rates (prompts,) as the prior's, worth `strength` rollouts. They move with groups.

        A fitted strength starts from there: what a prediction is worth falls as the policy moves away from it.
        """
        base = self.group_rates()[self.groups] if self.cfg.pooling == "group" else np.full(len(self), 0.5)
        self.predicted = special.logit(np.clip(rates, 0.01, 0.99)) - special.logit(base), strength
        self.memory.prefer(strength)

    def dead(self, rows: Ints | slice = slice(None)) -> Floats:
        """Probability that a prompt is dead."""
        odds = self.dead_odds(rows)
        return np.asarray(np.where(odds < 0, np.exp(odds), 1.0) / (1 + np.exp(-np.abs(odds))))

    def dead_odds(self, rows: Ints | slice = slice(None)) -> Floats:
        """Log odds of being dead at the current step."""
        odds, before, now = self.dead_log_odds[rows], self.first_dead_odds, _log_odds(self.dead_prior)
        if self.cfg.dead_fading == 1 and now == before:
            return odds
        since = np.where(self.touched[rows] == NEVER, 0, self.step - self.touched[rows]).astype(np.float64)
        faded = now + (odds - before) * np.power(self.cfg.dead_fading, since)
        return np.asarray(np.where(odds == ALIVE, ALIVE, faded))

    def dead_odds_to_keep(self, rows: Ints | slice = slice(None)) -> Floats:
        """`dead_odds` as they are stored: at the first prior share, whatever has been fitted since."""
        odds = self.dead_odds(rows)
        moved = odds - _log_odds(self.dead_prior) + self.first_dead_odds
        return np.asarray(np.where(odds == ALIVE, ALIVE, moved))

    def fit_dead_prior(self) -> None:
        """Take the share of dead prompts that makes what the visited ones have shown likeliest, if so configured.

        Expectation maximisation over their evidence, beside a few made-up prompts at the first share. No other state
        than that evidence goes in, so it need not be kept.
        """
        if self.cfg.dead_prior != "fitted":
            return
        odds = self.dead_log_odds[self.touched != NEVER]
        # By tenths of a nat: as good, and the cost of a step is one pass over the prompts.
        tenths = np.rint((odds[odds != ALIVE] - self.first_dead_odds) * 10).astype(np.int64)
        counts = np.bincount(np.clip(tenths, 0, 10 * int(_MOST_EVIDENCE)))
        ratio = np.exp(np.arange(len(counts)) / 10)
        share = self._first_dead_prior
        for _ in range(_EM_STEPS):
            dead = float(np.sum(counts * share * ratio / (share * ratio + 1 - share)))
            share = (self._first_dead_prior * _MADE_UP + dead) / (_MADE_UP + len(odds))
        self.dead_prior = share

    def mean(self, rows: Ints | slice = slice(None)) -> Floats:
        """Expected pass rate: (1 - P(dead)) a / (a + b)."""
        a, b = self.parameters(rows)
        return np.asarray((1 - self.dead(rows)) * a / (a + b))

    def interval(self, rows: Ints | slice = slice(None), coverage: float = 0.9) -> tuple[Floats, Floats]:
        """Ends between which the pass rate lies with probability `coverage`, with equal tails. A dead prompt's is 0."""
        (a, b), dead = self.parameters(rows), self.dead(rows)
        tail = (1 - coverage) / 2
        low, high = ((level - dead) / np.maximum(1 - dead, 1e-12) for level in (tail, 1 - tail))
        ends = (np.where(at > 0, special.beta_quantile(a, b, np.clip(at, 0, 1)), 0.0) for at in (low, high))
        return next(ends), next(ends)

    def group_rates(self) -> Floats:
        """Pass rate of each group among living prompts, shrunk to that of the set; shape (groups,)."""
        s, f = self.group_successes, self.group_failures
        shrink = self.cfg.group_strength
        whole = (s.sum() + 0.5 * shrink) / (s.sum() + f.sum() + shrink)
        return np.asarray(np.clip((s + shrink * whole) / (s + f + shrink), 0.01, 0.99))

    def without_evidence(self) -> list[str]:
        """Ids of prompts that no rollout has ever been counted for."""
        return [x.decode() for x in self.ids[self.touched == NEVER]]

    def evidence(self) -> Floats:
        """Faded number of rollouts behind each prompt."""
        return np.asarray((self.successes + self.failures) * self._fading(slice(None)))

    def summary(self, bins: int = 20) -> dict[str, Any]:
        """What people ask of a posterior; plain JSON values. `histogram` counts prompts by expected pass rate."""
        mean, faded = self.mean(), self._fading(slice(None))
        a, b = fit_prior(np.round(self.successes * faded, 3), np.round(self.failures * faded, 3))
        counts = np.histogram(mean, bins=bins, range=(0.0, 1.0))[0]
        return {
            "prompts": len(self),
            "step": self.step,
            "evidence": round(float(self.evidence().sum()), 6),
            "prompts_with_evidence": int(np.sum(self.touched != NEVER)),
            "prior": {"a": round(a, 6), "b": round(b, 6)},
            "fading": self.memory.fading,
            "strength": self.memory.strength,
            "mean": round(float(mean.mean()), 6) if len(self) else 0.0,
            "histogram": [int(c) for c in counts],
            "frontier_share": round(float(np.mean((mean >= 0.1) & (mean <= 0.9))), 6) if len(self) else 0.0,
            "dead_share": round(float(self.dead().mean()), 6) if len(self) else 0.0,
            "archived": 0 if self.archive is None else int(self.archive.num_rows),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that `update` changes, as copies."""
        arrays = {name: getattr(self, name).copy() for name in _STATE}
        return {"step": self.step, "log_evidence": self.memory.log_evidence.copy(), **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave. Raises `ConfigError` for one of another prompt set or other settings."""
        if missing := {"step", "log_evidence", *_STATE} - set(state):
            raise ConfigError(f"the state has no {sorted(missing)[0]}: it was written by another version")
        if len(state["right"]) != len(self) or len(state["group_successes"]) != len(self.group_names):
            raise ConfigError(f"the state is of {len(state['right'])} prompts, this posterior of {len(self)}")
        if state["log_evidence"].shape != self.memory.log_evidence.shape:
            raise ConfigError("the state was written with another posterior.fading or posterior.strength")
        self.step, self.memory.log_evidence = int(state["step"]), state["log_evidence"].copy()
        for name in _STATE:
            setattr(self, name, state[name].copy())
        self.fit_dead_prior()

    def _prior_rates(self, rows: Ints | slice) -> Floats:
        """The prior's pass rate of the given rows."""
        rate = self.group_rates()[self.groups[rows]] if self.cfg.pooling == "group" else np.full(len(self), 0.5)[rows]
        if self.predicted is None:
            return rate
        return np.asarray(np.clip(special.expit(special.logit(rate) + self.predicted[0][rows]), 0.01, 0.99))

    def _all_counts(self, rows: Ints) -> tuple[Floats, Floats]:
        """`own_counts` under every fading; shape (rows, fadings)."""
        faded = np.power(self.memory.fadings, ages(self.step, self.touched[rows])[:, None])
        return self.right[rows] * faded, self.wrong[rows] * faded

    def _score(self, rows: Ints, before: tuple[Floats, Floats], right: Floats, wrong: Floats) -> None:
        """Compare the models of memory by what they said of these rows; in order of a hash, so any few will do."""
        if self.memory.log_evidence.size == 1:
            return
        # Of a group that nothing is known of all models say the same wrong thing, and the vaguest is the least wrong.
        known = (self.group_successes + self.group_failures > 0)[self.groups[rows]] | (self.cfg.pooling == "none")
        some = np.flatnonzero(known)[:SCORED]
        counts, outcomes = (before[0][some], before[1][some]), (right[some], wrong[some])
        self.memory.score(counts, self._prior_rates(rows[some]), self.dead(rows[some]), outcomes)

    def _advance(self, step: int) -> None:
        if step > self.step:
            self.group_successes *= self.cfg.group_fading ** (step - self.step)
            self.group_failures *= self.cfg.group_fading ** (step - self.step)
            self.memory.forget(step - self.step)
            self.step = step

    def _fading(self, rows: Ints | slice) -> Floats:
        """Factor on the stored counts; they were last touched some steps ago."""
        return np.asarray(np.power(self.memory.fading, ages(self.step, self.touched[rows])))

    def _suspect(self, rows: Ints, right: Floats, wrong: Floats, a: Floats, b: Floats) -> None:
        if self.cfg.dead_prior == 0:
            return
        against = np.minimum(-log_all_wrong(a, b, wrong), _MOST_EVIDENCE)
        alive = (right > 0) | (self.dead_log_odds[rows] == ALIVE)
        self.dead_log_odds[rows] = np.where(alive, ALIVE, self.dead_odds_to_keep(rows) + against)


def encoded(ids: Sequence[str]) -> npt.NDArray[np.bytes_]:
    """Ids as UTF-8, whose order is that of a prompt set."""
    try:
        return np.array(ids, dtype=np.bytes_)  # ASCII, as content ids are: many times faster
    except UnicodeEncodeError:
        return np.array([x.encode() for x in ids], dtype=np.bytes_)


def _log_odds(p: float) -> float:
    return float(np.log(p / (1 - p))) if p > 0 else ALIVE
