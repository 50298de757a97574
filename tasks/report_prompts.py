"""Which prompts a report names: those that moved most, the hardest, the suspicious; and where rollouts went."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from cures_core.curriculum import load_posterior
from cures_core.curriculum.posterior import Posterior
from cures_core.prompts import PromptSet
from cures_core.tally import Heard, Tally
from tasks.records import Record
from tasks.stage import files_of
from tasks.storage import Store

SHOWN = 8
BINS = 20
MANY_TRIES = 4
"""Rollouts from which on it says something that none succeeded, none got a verdict, or most agree."""


def prompt_figures(store: Store, data: Record, first: Record, last: Record) -> dict[str, Any]:
    """`moved` and `hardest` (rows of prompts), `suspicious` (rows by reason) and `allocation`.

    From the prior `first`, the posterior `last`, and what the rollouts up to there have said.
    """
    prompts = PromptSet.read_parquet(files_of(store, data) / "prompts.parquet")
    before = load_posterior(files_of(store, first) / "posterior.parquet")
    after = load_posterior(files_of(store, last) / "posterior.parquet")
    names = [name.decode() for name in after.ids.tolist()]
    old, new = before.mean()[before.rows(names)], after.mean()
    seen = (after.successes + after.failures) > 0
    index = {name: i for i, name in enumerate(names)}
    place = {name: i for i, name in enumerate(prompts.ids)}

    def row(i: int, evidence: str = "") -> dict[str, Any]:
        prompt = prompts[place[names[i]]]
        return {
            "id": prompt.id,
            "problem": prompt.problem[:300],
            "answer": prompt.answer[:80],
            "before": float(old[i]),
            "after": float(new[i]),
            "successes": float(after.successes[i]),
            "failures": float(after.failures[i]),
            "evidence": evidence,
        }

    def rows(chosen: Any, order: Any) -> list[dict[str, Any]]:
        picked = np.flatnonzero(chosen)
        return [row(i) for i in picked[np.argsort(order[picked], kind="stable")][:SHOWN].tolist()]

    tally = [(index[name], heard) for name, heard in _tally(store, last).items() if name in index]
    suspicious = [_suspects(row, tally, *kind) for kind in _KINDS]
    return {
        "moved": rows(seen, -np.abs(new - old)),
        "hardest": rows(seen & (after.successes > 0), new),
        "suspicious": [suspects for suspects in suspicious if suspects["total"]],
        "allocation": _allocation(after, new),
    }


def _tally(store: Store, state: Record) -> dict[str, Heard]:
    """Empty where nothing has been trained yet."""
    path = files_of(store, state) / "tally.json"
    return Tally(json.loads(path.read_bytes())).prompts if path.exists() else {}


def _unjudged(heard: Heard) -> str:
    if heard.rollouts >= MANY_TRIES and heard.unknown == heard.rollouts:
        return f"no verdict in {heard.rollouts} rollouts"
    return ""


def _disputed(heard: Heard) -> str:
    answer, votes = heard.rival()
    if votes >= MANY_TRIES and 2 * votes > heard.rollouts:
        return f"{votes} of {heard.rollouts} rollouts answer {answer}, {heard.correct} the gold answer"
    return ""


def _unsolved(heard: Heard) -> str:
    known = heard.rollouts - heard.unknown
    if known >= MANY_TRIES and not heard.correct and not _disputed(heard):
        return f"{known} rollouts, none correct"
    return ""


_Kind = tuple[str, str, Callable[[Heard], str]]
_KINDS: tuple[_Kind, ...] = (
    (
        "never a verdict",
        "No rollout could be judged: the gold answer, or the verifier, does not fit the prompt.",
        _unjudged,
    ),
    (
        "answer disputed",
        "Most rollouts agree on another answer than the gold one: either it is wrong, or the policy makes one mistake "
        "again and again.",
        _disputed,
    ),
    (
        "never solved",
        "Tried several times without a success, and no answer stands out: a wrong gold answer, or beyond this policy.",
        _unsolved,
    ),
)


def _suspects(
    row: Callable[[int, str], dict[str, Any]],
    tally: Iterable[tuple[int, Heard]],
    reason: str,
    meaning: str,
    evidence: Callable[[Heard], str],
) -> dict[str, Any]:
    found = [(-heard.rollouts, i, said) for i, heard in tally if (said := evidence(heard))]
    shown = [row(i, said) for _, i, said in sorted(found)[:SHOWN]]
    return {"reason": reason, "meaning": meaning, "total": len(found), "rows": shown}


def _allocation(after: Posterior, mean: Any) -> dict[str, list[float]]:
    """Shares of the prompts and of the remembered rollouts by expected pass rate, in equal bins over 0..1."""
    evidence = after.successes + after.failures
    edges = np.linspace(0, 1, BINS + 1)
    prompts, _ = np.histogram(mean, edges)
    rollouts, _ = np.histogram(mean, edges, weights=evidence)
    return {
        "prompts": (prompts / max(1, prompts.sum())).tolist(),
        "rollouts": (rollouts / max(1e-9, rollouts.sum())).tolist(),
    }
