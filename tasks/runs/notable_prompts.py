"""Which prompts and items of suites a report names: those that moved most, the hardest, the suspicious; and where
rollouts went."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from cures_core.curriculum import load_posterior
from cures_core.curriculum.beta import Floats
from cures_core.curriculum.posterior import Posterior
from cures_core.evaluation.items import ItemResult, read_items
from cures_core.kept_rollouts.redaction import Redactor
from cures_core.prompts import PromptSet
from cures_core.prompts.chats import transcript
from cures_core.report.run_data import Allocation, Named, PromptRow, Suspects
from cures_core.tally import MANY_TRIES, Tally, Votes
from cures_core.terms import Prompt
from tasks.runs.figures import EvaluateFigures, StateFigures, ValidateFigures
from tasks.runs.records import Record, files_of
from tasks.storage import Store

SHOWN = 8
BINS = 20


def named_prompts(
    store: Store,
    data: Record[ValidateFigures],
    first: Record[StateFigures],
    last: Record[StateFigures],
    redactor: Redactor,
) -> Named:
    """From the prior `first`, the posterior `last`, and the verdicts of the rollouts up to there."""
    prompts = PromptSet.read_parquet(files_of(store, data) / "prompts.parquet")
    before = load_posterior(files_of(store, first) / "posterior.parquet")
    after = load_posterior(files_of(store, last) / "posterior.parquet")
    names = [name.decode() for name in after.ids.tolist()]
    old, new = before.mean()[before.rows(names)], after.mean()
    seen = (after.successes + after.failures) > 0
    index = {name: i for i, name in enumerate(names)}
    place = {name: i for i, name in enumerate(prompts.ids)}

    def row(i: int, evidence: str = "") -> PromptRow:
        counts = after.successes[i], after.failures[i]
        return _row(redactor, prompts[place[names[i]]], old[i], new[i], *counts, evidence)

    def rows(chosen: NDArray[np.bool_], order: Floats) -> tuple[PromptRow, ...]:
        picked = np.flatnonzero(chosen)
        return tuple(row(i) for i in picked[np.argsort(order[picked], kind="stable")][:SHOWN].tolist())

    tally = [(index[name], votes) for name, votes in tally_of(store, last).items() if name in index]
    return Named(
        moved=rows(seen, -np.abs(new - old)),
        hardest=rows(seen & (after.successes > 0), new),
        suspicious=tuple(_suspicious(row, tally)),
        allocation=_allocation(after, new),
    )


def suspicious_items(
    store: Store,
    data: Record[ValidateFigures],
    scores: Sequence[Record[EvaluateFigures]],
    suites: Sequence[str],
    redactor: Redactor,
) -> list[Suspects]:
    """Items of suites that look wrong, by suite and reason, from the sampled completions of all evaluations."""
    return [found for suite in suites for found in _suspicious_of(store, data, scores, suite, redactor)]


def _suspicious_of(
    store: Store,
    data: Record[ValidateFigures],
    scores: Sequence[Record[EvaluateFigures]],
    suite: str,
    redactor: Redactor,
) -> list[Suspects]:
    prompts = PromptSet.read_parquet(files_of(store, data) / "suites" / f"{suite}.parquet")
    rounds = [read_items(files_of(store, record) / f"items-{suite}.parquet") for record in scores]
    index = {name: i for i, name in enumerate(prompts.ids)}
    tries = [(index[items[0].id], items) for items in zip(*rounds, strict=True)]
    votes = {i: _votes(items) for i, items in tries}
    rates = {i: [item.correct / item.samples for item in items] for i, items in tries}

    def row(i: int, evidence: str) -> PromptRow:
        counts = votes[i]
        wrong = counts.rollouts - counts.correct - counts.unknown
        return _row(redactor, prompts[i], rates[i][0], rates[i][-1], counts.correct, wrong, evidence)

    return _suspicious(row, votes.items(), suite)


def _votes(items: Iterable[ItemResult]) -> Votes:
    """Of the completions of one item, over several evaluations."""
    votes = Votes()
    for item in items:
        votes.rollouts += item.samples
        votes.correct += item.correct
        votes.unknown += item.unknown
        if item.rival:
            votes.vote(item.rival, item.rival_votes)
    return votes


def _row(
    redactor: Redactor,
    prompt: Prompt,
    before: float,
    after: float,
    successes: float,
    failures: float,
    evidence: str,
) -> PromptRow:
    return PromptRow(
        id=prompt.id,
        problem=redactor.text(transcript(prompt))[:300],
        answer=redactor.text(prompt.answer)[:80],
        before=float(before),
        after=float(after),
        successes=float(successes),
        failures=float(failures),
        evidence=redactor.text(evidence),
    )


def tally_of(store: Store, state: Record[StateFigures]) -> dict[str, Votes]:
    """Empty where nothing has been trained yet."""
    path = files_of(store, state) / "tally.json"
    return Tally(json.loads(path.read_bytes())).prompts if path.exists() else {}


def _unjudged(votes: Votes) -> str:
    return f"no verdict in {votes.rollouts} rollouts" if votes.is_unjudged else ""


def _disputed(votes: Votes) -> str:
    if not votes.is_disputed:
        return ""
    answer, number = votes.rival()
    return f"{number} of {votes.rollouts} rollouts answer {answer}, {votes.correct} the gold answer"


def _unsolved(votes: Votes) -> str:
    known = votes.rollouts - votes.unknown
    if known >= MANY_TRIES and not votes.correct and not _disputed(votes):
        return f"{known} rollouts, none correct"
    return ""


_Kind = tuple[str, str, Callable[[Votes], str]]
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


def _suspicious(
    row: Callable[[int, str], PromptRow], tally: Iterable[tuple[int, Votes]], suite: str = ""
) -> list[Suspects]:
    """By reason; reasons without a prompt are left out."""
    counts, suspects = list(tally), []
    for reason, meaning, evidence in _KINDS:
        found = [(-votes.rollouts, i, text) for i, votes in counts if (text := evidence(votes))]
        if found:
            shown = tuple(row(i, text) for _, i, text in sorted(found)[:SHOWN])
            suspects.append(Suspects(suite=suite, reason=reason, meaning=meaning, total=len(found), rows=shown))
    return suspects


def _allocation(after: Posterior, mean: Floats) -> Allocation:
    """Shares of the prompts and of the remembered rollouts by expected pass rate, in equal bins over 0..1."""
    evidence = after.successes + after.failures
    edges = np.linspace(0, 1, BINS + 1)
    prompts, _ = np.histogram(mean, edges)
    rollouts, _ = np.histogram(mean, edges, weights=evidence)
    return Allocation(
        prompts=tuple((prompts / max(1, prompts.sum())).tolist()),
        rollouts=tuple((rollouts / max(1e-9, rollouts.sum())).tolist()),
    )
