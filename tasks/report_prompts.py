"""Which prompts a report names: those that moved most, the hardest, the suspicious; and where rollouts went."""

from __future__ import annotations

from typing import Any

import numpy as np

from cures_core.curriculum import load_posterior
from cures_core.curriculum.posterior import Posterior
from cures_core.prompts import PromptSet
from tasks.records import Record
from tasks.stage import files_of
from tasks.storage import Store

SHOWN = 8
BINS = 20
MANY_TRIES = 4.0
"""Remembered rollouts without a success from which on a prompt is worth a look."""


def prompt_figures(store: Store, data: Record, first: Record, last: Record) -> dict[str, Any]:
    """`moved`, `hardest` and `suspicious` (rows of prompts) and `allocation`, from the prior and the last posterior."""
    prompts = PromptSet.read_parquet(files_of(store, data) / "prompts.parquet")
    before = load_posterior(files_of(store, first) / "posterior.parquet")
    after = load_posterior(files_of(store, last) / "posterior.parquet")
    old, new = before.mean()[before.rows([name.decode() for name in after.ids.tolist()])], after.mean()
    seen = (after.successes + after.failures) > 0
    silent = seen & (after.successes == 0) & (after.failures >= MANY_TRIES)

    def rows(chosen: Any, order: Any) -> list[dict[str, Any]]:
        picked = np.flatnonzero(chosen)
        picked = picked[np.argsort(order[picked], kind="stable")][:SHOWN]
        return [_row(prompts, after, old, new, i) for i in picked.tolist()]

    return {
        "moved": rows(seen, -np.abs(new - old)),
        "hardest": rows(seen & (after.successes > 0), new),
        "suspicious": rows(silent, -after.failures),
        "suspicious_total": int(silent.sum()),
        "allocation": _allocation(after, new),
    }


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


def _row(prompts: PromptSet, after: Posterior, old: Any, new: Any, i: int) -> dict[str, Any]:
    prompt = prompts[prompts.ids.index(after.ids[i].decode())]
    return {
        "id": prompt.id,
        "problem": prompt.problem[:300],
        "answer": prompt.answer[:80],
        "before": float(old[i]),
        "after": float(new[i]),
        "successes": float(after.successes[i]),
        "failures": float(after.failures[i]),
    }
