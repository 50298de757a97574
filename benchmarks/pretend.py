"""Prompt sets and told groups without texts or tokens, where only the curriculum is looked at."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cures_core.prompts import PromptSet
from cures_core.terms import FinishReason, Group, Outcome, Request, Rollout, Verdict


def pretend_prompts(sources: npt.ArrayLike, levels: npt.ArrayLike) -> PromptSet:
    """One prompt for each pair of labels, (num,) each; its id is its index in hexadecimal, so rows keep their order."""
    source, level = np.asarray(sources).astype(str), np.asarray(levels).astype(str)
    numbers = np.arange(len(source)).astype(str)
    columns = {
        "id": [f"{i:032x}" for i in range(len(source))],
        "problem": numbers,
        "answer": numbers,
        "source": source,
        "level": level,
        "subject": np.full(len(source), ""),
    }
    return PromptSet(pa.table({name: pa.array(values, pa.large_string()) for name, values in columns.items()}))


def answered(request: Request, right: npt.NDArray[np.bool_]) -> Group:
    """The request's group; `right` (n,) says which of its rollouts are."""
    rollout = Rollout(request.id, 0, (1,), (2,), (-0.5,), "", FinishReason.STOP)
    verdicts = [Verdict(Outcome.CORRECT if hit else Outcome.WRONG) for hit in right]
    return Group(request, [rollout] * request.n, verdicts)
