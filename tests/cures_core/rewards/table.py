"""The project's own table of equivalences, with decided verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cures_core.terms import Outcome


class Row(NamedTuple):
    line: int
    outcome: Outcome
    gold: str
    answer: str
    reason: str = ""
    """Why it is so; rows with a reason hold both ways round."""


def rows() -> list[Row]:
    """Rows of equivalence.tsv: verdict, gold, answer and maybe a reason, tab-separated; # begins a heading."""
    path = Path(__file__).with_name("equivalence.tsv")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.startswith("#"):
            outcome, *texts = line.split("\t")
            found.append(Row(number, Outcome(outcome), *texts))
    return found
