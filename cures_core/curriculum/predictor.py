"""Pass rates of prompts never rolled out, predicted from what they look like; used only where that beats group pooling.

A logistic model on hashed n-grams, lengths, source, level and the kind of answer, fitted to the rollouts there are. Its
strength, the mass its predictions get in the prior, is the one under which prompts held out in five-fold
cross-validation are likeliest (beta-binomial).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from cures_core.curriculum.beta import Floats
from cures_core.curriculum.posterior import Ints, Posterior
from cures_core.prompts import PromptSet

FEWEST = 50
"""Prompts with rollouts below which nothing is fitted."""
_FOLDS = 5
_HASHED = 4096
_PENALTIES = (0.1, 1.0, 10.0)  # inverse strengths of the ridge, as scikit-learn's C
_STRENGTHS = np.array([0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0])


@dataclass(frozen=True)
class Prediction:
    """What cross-validation found. Log likelihoods are per held-out prompt, in nats; larger is better."""

    used: bool
    rates: Floats
    """Predicted pass rate of every prompt, shape (prompts,); empty where the groups are as good. Those of prompts with
    evidence are from fits to others: their own outcomes are counted beside the prior, and would count twice."""
    strength: float
    """Mass of the prediction in the prior, in rollouts."""
    features: float
    """Log likelihood under the predictor, at its best strength."""
    groups: float
    """The same under group pooling, at its best strength."""
    prompts: int
    """Prompts that were held out in turn."""

    def words(self) -> str:
        """One sentence for the report."""
        better = "predict unseen prompts better than" if self.used else "predict unseen prompts no better than"
        return (
            f"Features of the prompts {better} their groups ({self.features:.3f} against {self.groups:.3f} nats per "
            f"held-out prompt, {self.prompts:,} prompts): {'the features are' if self.used else 'the groups are'} used."
        )


def predict(prompts: PromptSet, posterior: Posterior, seed: int) -> Prediction | None:
    """Fit and judge the model on the prompts of `posterior` with evidence; None where fewer than `FEWEST` have some.

    It is used where its mean advantage over group pooling is above one standard error of itself.
    """
    successes, failures = posterior.own_counts()
    rows = np.flatnonzero(successes + failures > 0)
    if len(rows) < FEWEST:
        return None
    s, f, groups = successes[rows], failures[rows], posterior.groups[rows]
    every = features(prompts)
    seen = every[rows]
    fold = np.random.default_rng([seed, 0x464F4C44]).permutation(len(rows)) % _FOLDS
    pooled = _held_out(fold, lambda fit, out: _pooled(posterior, s[fit], f[fit], groups[fit])[groups[out]])
    by_penalty = [
        _held_out(fold, lambda fit, out, c=c: _model(seen[fit], s[fit], f[fit], c)(seen[out])) for c in _PENALTIES
    ]
    of_groups, _ = _best(pooled, s, f)
    scored = [_best(rates, s, f) for rates in by_penalty]
    best = int(np.argmax([likelihood.mean() for likelihood, _ in scored]))
    likelihood, strength = scored[best]
    gain = likelihood - of_groups
    used = bool(gain.mean() > gain.std(ddof=1) / math.sqrt(len(gain)))
    rates = np.zeros(0)
    if used:
        rates = _model(seen, s, f, _PENALTIES[best])(every)
        rates[rows] = by_penalty[best]
    return Prediction(used, rates, strength, float(likelihood.mean()), float(of_groups.mean()), len(rows))


def features(prompts: PromptSet) -> Any:
    """Sparse matrix (prompts, features): hashed words and characters of the problem, its labels, lengths."""
    from scipy import sparse
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.feature_extraction.text import HashingVectorizer

    problems, answers = prompts.column("problem"), prompts.column("answer")
    labels = zip(prompts.column("source"), prompts.column("level"), answers, strict=True)
    named = [[f"source={source}", f"level={level}", f"{source}/{level}", kind_of(a)] for source, level, a in labels]
    common: dict[str, Any] = {"n_features": _HASHED, "alternate_sign": False, "lowercase": True}
    words = HashingVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", **common)
    characters = HashingVectorizer(analyzer="char", ngram_range=(1, 2), **common)
    lengths = np.log1p(
        np.array(
            [[len(p), p.count(" "), sum(map(str.isdigit, p)), len(a)] for p, a in zip(problems, answers, strict=True)]
        )
    )
    lengths = (lengths - lengths.mean(axis=0)) / np.maximum(lengths.std(axis=0), 1e-9)
    hashed = FeatureHasher(1024, input_type="string", alternate_sign=False).transform(named)
    return sparse.hstack([words.transform(problems), characters.transform(problems), hashed, lengths]).tocsr()


def kind_of(answer: str) -> str:
    """What sort of answer is asked for: integer, decimal, fraction, choice, formula or text."""
    text = answer.strip().replace(",", "")
    if re.fullmatch(r"[-+]?\d+", text):
        return "integer"
    if re.fullmatch(r"[-+]?\d*\.\d+", text):
        return "decimal"
    if re.fullmatch(r"[-+]?\d+/\d+", text) or text.startswith((r"\frac", r"\dfrac")):
        return "fraction"
    if re.fullmatch(r"\(?[A-Ea-e]\)?", text):
        return "choice"
    return "formula" if re.search(r"[\\^=_{}]", text) else "text"


def _held_out(fold: npt.NDArray[np.int64], rates_of: Any) -> Floats:
    """Rates of all rows, each from a fit to the other folds."""
    rates = np.zeros(len(fold))
    for k in range(_FOLDS):
        out = np.flatnonzero(fold == k)
        rates[out] = rates_of(np.flatnonzero(fold != k), out)
    return np.clip(rates, 0.01, 0.99)


def _pooled(posterior: Posterior, s: Floats, f: Floats, groups: Ints) -> Floats:
    """Group rates from these counts alone, as the posterior pools them."""
    alone = Posterior(posterior.ids[:0], posterior.groups[:0], posterior.group_names, posterior.cfg)
    num = len(posterior.group_names)
    alone.group_successes = np.bincount(groups, s, num).astype(np.float64)
    alone.group_failures = np.bincount(groups, f, num).astype(np.float64)
    return alone.group_rates()


def _model(x: Any, s: Floats, f: Floats, penalty: float) -> Any:
    """A function from features to pass rates, fitted to counts; a constant where all rollouts agree."""
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    if not s.sum() or not f.sum():
        rate = float((s.sum() + 0.5) / (s.sum() + f.sum() + 1))
        return lambda rows: np.full(rows.shape[0], rate)
    outcomes = np.concatenate([np.ones(len(s)), np.zeros(len(f))])
    model = LogisticRegression(C=penalty, max_iter=300)
    model.fit(sparse.vstack([x, x]), outcomes, sample_weight=np.concatenate([s, f]))
    return lambda rows: np.clip(model.predict_proba(rows)[:, 1], 0.01, 0.99)


def _best(rates: Floats, s: Floats, f: Floats) -> tuple[Floats, float]:
    """(log likelihood of every row at the best strength, that strength)."""
    a, b = rates[:, None] * _STRENGTHS, (1 - rates)[:, None] * _STRENGTHS
    table = special.betaln(a + s[:, None], b + f[:, None]) - special.betaln(a, b)
    column = int(np.argmax(table.mean(axis=0)))
    return np.asarray(table[:, column]), float(_STRENGTHS[column])
