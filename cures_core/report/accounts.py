"""The accounts of a run: what each kind of work has cost in rollouts, completion tokens, wall seconds and updates."""

from __future__ import annotations

from collections.abc import Mapping

from cures_core.report.run_data import Spent, Wasted

NAMES = {
    "warm_start": "warm start of the policy",
    "prior": "estimating the prior",
    "train": "training",
    "eval": "evaluation",
}
HEADER = ("for", "rollouts", "completion tokens", "wall time, s", "updates")
Row = tuple[str, str, str, str, str]


def account_rows(cost: Mapping[str, Spent], wasted: Wasted) -> list[Row]:
    """Every kind of work, what of training screened or entered no update, the sum, and what judges cost beside it."""
    if not cost:
        return []
    rows = []
    for name, one in cost.items():
        rows.append(_row(NAMES.get(name, name), one))
        if name == "train":
            rows += _of_training(wasted)
    total = Spent(
        rollouts=sum(one.rollouts for one in cost.values()),
        tokens=sum(one.tokens for one in cost.values()),
        seconds=sum(one.seconds for one in cost.values()),
        updates=sum(one.updates for one in cost.values()),
    )
    rows.append(_row("all of it", total))
    if judged := sum(one.judge_tokens for one in cost.values()):
        rows.append(("judges' tokens, read and written", "", f"{judged:,}", "", ""))
    return rows


def _row(name: str, one: Spent) -> Row:
    updates = f"{one.updates:,}" if one.updates else "-"
    return name, _or_dash(one.rollouts), _or_dash(one.tokens), f"{one.seconds:,.1f}", updates


def _of_training(wasted: Wasted) -> list[Row]:
    rows: list[Row] = []
    if wasted.first_tries is not None:
        rows.append(("of these, first tries of screening", f"{wasted.first_tries:,}", "", "", ""))
    if wasted.unused is not None:
        tokens = "" if wasted.unused_tokens is None else f"{wasted.unused_tokens:,}"
        rows.append(("of these, in no update", f"{wasted.unused:,}", tokens, "", ""))
    return rows


def _or_dash(number: int) -> str:
    return f"{number:,}" if number else "-"
