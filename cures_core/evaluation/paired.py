"""Knows how one policy compares with another on the same items: what both find hard cancels out of the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cures_core.config.base import Strict
from cures_core.config.evaluation import EvaluationConfig
from cures_core.errors import ConfigError
from cures_core.evaluation.intervals import bootstrap
from cures_core.evaluation.items import ItemResult
from cures_core.evaluation.pass_at import Ints
from cures_core.evaluation.scores import SuiteScore


@dataclass(frozen=True)
class Evaluated:
    """A policy on a suite: its score and the items behind it."""

    score: SuiteScore
    items: Sequence[ItemResult]


class Paired(Strict):
    """Candidate minus incumbent on one suite. Gains are differences of avg@k, in -1..1."""

    suite: str
    """Name of the suite."""
    n: int
    """Items."""
    k: int
    """Sampled completions of each item, of either policy."""
    gain: float
    """Mean gain over the items."""
    low: float
    """Lower end of the gain's interval."""
    high: float
    """Upper end of the gain's interval."""
    confidence: float
    """Coverage of the interval."""
    better: int
    """Items on which the candidate has more correct completions."""
    worse: int
    """Items on which it has fewer."""
    p_value: float
    """Two-sided exact sign test of `better` against `worse`: do items gain as often as they lose? Ties are left out."""
    unknown_share: float = 0.0
    """Share of completions without a verdict, of the policy that has more of them."""
    unlike: tuple[str, ...] = ()
    """What made the two differently: versions and machine, in words."""


def compare(candidate: Evaluated, incumbent: Evaluated, cfg: EvaluationConfig) -> Paired:
    """The gain of `candidate`, with items joined by id and resampled as pairs.

    Raises `ConfigError` where the two were not evaluated alike, naming what differs: suite, settings or items.
    """
    _check_alike(candidate.score, incumbent.score)
    theirs = {item.id: item.correct for item in incumbent.items}
    _check_ids(candidate, theirs)
    differences: Ints = np.array([item.correct - theirs[item.id] for item in candidate.items], dtype=np.int64)
    n, k = len(differences), candidate.score.k
    # Whole numbers until the end: a gain of nothing is 0 exactly, and not above 0 by rounding.
    interval = bootstrap(differences, cfg.confidence, cfg.resamples, cfg.seed, (0,))
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    return Paired(
        suite=candidate.score.suite,
        n=n,
        k=k,
        gain=int(differences.sum()) / (n * k),
        low=interval.low / k,
        high=interval.high / k,
        confidence=cfg.confidence,
        better=better,
        worse=worse,
        p_value=_sign_test(better, worse),
        unknown_share=max(candidate.score.unknown_share, incumbent.score.unknown_share),
        unlike=tuple(_differing(candidate.score.made_with, incumbent.score.made_with)),
    )


def _sign_test(better: int, worse: int) -> float:
    """Two-sided exact p-value; 1 where all items tie."""
    from scipy.stats import binomtest  # takes a second to import, which those who only read scores need not wait

    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def _check_alike(candidate: SuiteScore, incumbent: SuiteScore) -> None:
    if bool(candidate.made_with) != bool(incumbent.made_with):
        older = "incumbent" if candidate.made_with else "candidate"
        raise ConfigError(
            f"suite {candidate.suite}: the scores of the {older} are of an earlier version, which noted less of how "
            "they were made. Resume its run: that scores it again"
        )
    ours: Mapping[str, object] = {"suite": candidate.suite, "k": candidate.k, **candidate.settings}
    theirs: Mapping[str, object] = {"suite": incumbent.suite, "k": incumbent.k, **incumbent.settings}
    if differing := _differing(ours, theirs):
        raise ConfigError(
            f"suite {candidate.suite}: the scores do not compare, they were made with different settings "
            f"({'; '.join(differing)}). Evaluate both with the same settings"
        )


def _differing(ours: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    return [
        f"{name}: candidate {ours.get(name, 'absent')!r}, incumbent {theirs.get(name, 'absent')!r}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]


def _check_ids(candidate: Evaluated, theirs: Mapping[str, int]) -> None:
    ours = {item.id for item in candidate.items}
    if not ours or len(ours) != len(candidate.items):
        raise ConfigError(f"suite {candidate.score.suite}: no items, or an item twice; evaluate the candidate again")
    if odd := sorted(ours ^ set(theirs)):
        side = "candidate" if odd[0] in ours else "incumbent"
        raise ConfigError(
            f"suite {candidate.score.suite}: {len(odd)} items were seen by one policy only, for example {odd[0]} by "
            f"the {side}. Evaluate both on the same suite"
        )
