"""What became of the prompts of each source: who judges them, how often they were drawn, and how they came out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

import numpy as np

from cures_core.config.rewards import BySourceConfig, RewardConfig
from cures_core.curriculum import load_posterior
from cures_core.prompts import PromptSet
from cures_core.report.run_data import SourceRow
from cures_core.tally import Votes
from tasks.runs.figures import StateFigures, ValidateFigures
from tasks.runs.notable_prompts import tally_of
from tasks.runs.records import Record, files_of
from tasks.storage import Store

MOST = 50
"""Sources that are told of, the largest first."""


def source_rows(
    store: Store, reward: RewardConfig, data: Record[ValidateFigures], states: Mapping[int, Record[StateFigures]]
) -> tuple[SourceRow, ...]:
    """A row for each source of the prompt set; none where there is but one and all its gold answers could be used."""
    prompts = PromptSet.read_parquet(files_of(store, data) / "prompts.parquet")
    rejected = json.loads((files_of(store, data) / "validation.json").read_bytes())["prompts"].get("golds_rejected", {})
    labels = np.array(prompts.column("source"), dtype=object)
    sizes = Counter(labels.tolist())
    for name in rejected:
        sizes.setdefault(name, 0)
    if len(sizes) < 2:
        return ()
    votes = tally_of(store, states[max(states)]) if states else {}
    total = sum(found.rollouts for found in votes.values())
    before, after = (_rates(store, states[k], prompts) for k in (min(states), max(states))) if states else (None, None)
    named = prompts.column("verifier")
    rows = []
    for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:MOST]:
        own = np.flatnonzero(labels == name)
        drawn = [votes[prompts.ids[i]] for i in own if prompts.ids[i] in votes]
        rollouts = sum(found.rollouts for found in drawn)
        rows.append(
            SourceRow(
                source=name,
                verifier=", ".join(dict.fromkeys(_verifier(reward, name, named[i]) for i in own)),
                prompts=int(size),
                golds_rejected=rejected.get(name, 0),
                drawn=len(drawn),
                rollouts=rollouts,
                share=rollouts / total if total else None,
                correct=_correct(drawn),
                before=None if before is None or not len(own) else float(before[own].mean()),
                after=None if after is None or not len(own) else float(after[own].mean()),
            )
        )
    return tuple(rows)


def _rates(store: Store, state: Record[StateFigures], prompts: PromptSet) -> np.ndarray:
    """Expected pass rates in the order of the prompts."""
    posterior = load_posterior(files_of(store, state) / "posterior.parquet")
    return posterior.mean(posterior.rows(prompts.ids))


def _correct(drawn: list[Votes]) -> float | None:
    known = sum(found.rollouts - found.unknown for found in drawn)
    return sum(found.correct for found in drawn) / known if known else None


def _verifier(reward: RewardConfig, source: str, name: str) -> str:
    """What judges a row, in a word."""
    if not isinstance(reward, BySourceConfig):
        return reward.type
    entry = next((e for e in reward.by_source if (e.called == name if name else source in e.sources)), None)
    return f"{reward.default.type} (default)" if entry is None else entry.called
