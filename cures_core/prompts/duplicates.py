"""Knows rows that repeat other rows: copies, copies written otherwise, and the same problem with another answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from cures_core.prompts.canonical import canonical
from cures_core.prompts.defects import Flaw

Keys = npt.NDArray[np.uint64]
Found = tuple[int, Flaw]
"""A row's position and what is wrong with it."""
Same = Callable[[str, str], bool]

MAX_DIFFERENT = 8
"""So many different answers to one problem are told apart: there is no more to be learnt from a ninth."""


def repeated_groups(keys: Keys) -> Iterator[npt.NDArray[np.int64]]:
    """Positions of rows with equal keys, ascending, for every key that occurs more than once; vectorised."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(keys) else np.array([], np.int64)
    lengths = np.diff(np.r_[starts, len(keys)])
    groups = [order[s : s + n] for s, n in zip(starts[lengths > 1], lengths[lengths > 1], strict=True)]
    yield from sorted(groups, key=lambda group: int(group[0]))


def same_ids(keys: Keys, lines: npt.NDArray[np.int64]) -> Iterator[Found]:
    """Rows whose publisher gave them the id of another row (key 0: no id)."""
    for group in repeated_groups(keys):
        if keys[group[0]] == 0:
            continue
        for i in group:
            other = group[1] if i == group[0] else group[0]
            yield int(i), ("duplicate_id", f"also on {lines[other]}")


def same_problems(
    group: Sequence[int], problems: Sequence[str], answers: Sequence[str], lines: Sequence[int], same: Same
) -> list[Found]:
    """Judge rows that share a coarse key; `same` says whether two gold answers are one.

    Equal texts with different answers contradict each other: none of them can be trusted. Of rows that say the same and
    answer the same, the first stays. Where only the canonical forms agree and the answers differ, case or punctuation
    may carry meaning: all stay.
    """
    found: list[Found] = []
    forms: dict[str, list[int]] = {}
    for k, problem in enumerate(problems):
        forms.setdefault(canonical(problem), []).append(k)
    for members in forms.values():
        if len(members) > 1:
            found += [(group[k], flaw) for k, flaw in _judge(members, problems, answers, lines, same)]
    return found


def _judge(
    members: Sequence[int], problems: Sequence[str], answers: Sequence[str], lines: Sequence[int], same: Same
) -> list[Found]:
    found: list[Found] = []
    texts: dict[str, list[int]] = {}
    for k in members:
        texts.setdefault(problems[k], []).append(k)
    value = _values([answers[k] for k in members], same)
    first_of: dict[int, int] = {}
    trusted = []
    for alike in texts.values():
        if len({value[answers[k]] for k in alike}) > 1:
            found += [(k, ("contradictory_answer", _others(alike, k, answers, lines))) for k in alike]
        else:
            trusted += alike
    num_values = len({value[answers[k]] for k in trusted})
    for k in sorted(trusted):
        kept = first_of.setdefault(value[answers[k]], k)
        if kept != k:
            how = "" if problems[k] == problems[kept] else ", written otherwise"
            found.append((k, ("duplicate_copy", f"of line {lines[kept]}{how}")))
        elif num_values > 1:
            found.append(
                (k, ("duplicate_problem_normalised", "with another answer; " + _others(trusted, k, answers, lines)))
            )
        elif len(trusted) > 1:
            exact = any(problems[other] == problems[k] for other in trusted if other != k)
            code = "duplicate_problem" if exact else "duplicate_problem_normalised"
            found.append((k, (code, _others(trusted, k, answers, lines))))
    return found


def _values(answers: Sequence[str], same: Same) -> dict[str, int]:
    """A number for every answer; those that are the same share it."""
    value: dict[str, int] = {}
    first: list[str] = []  # one answer of every number
    for answer in dict.fromkeys(answers):
        number = next((i for i, other in enumerate(first[:MAX_DIFFERENT]) if same(other, answer)), len(first))
        if number == len(first):
            first.append(answer)
        value[answer] = number
    return value


def _others(members: Sequence[int], k: int, answers: Sequence[str], lines: Sequence[int]) -> str:
    shown = [f"line {lines[o]}: {ascii(answers[o])[1:-1][:30]}" for o in members if o != k][:3]
    return "; ".join(shown)
