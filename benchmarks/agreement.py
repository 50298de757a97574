"""Where the `math` verifier and math-verify judge the same completions differently."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.verifier import model_like
from cures_core.config.data import DataConfig
from cures_core.config.rewards import MathConfig
from cures_core.errors import DataRejected
from cures_core.prompts import load_prompts
from cures_core.rewards import make_verifier
from cures_core.terms import Outcome

_PATIENCE_S = 30.0
"""Both get all the time they want: a busy machine must not look like a difference."""
_DOLLAR = re.compile(r"(?<!\\)\$")
_INTEGER = re.compile(r"(?<![\d.,\\])\d+(?![\d.,])")


def _respelled(gold: str, _: str) -> str:
    """The same value as another model writes it."""
    text = gold.replace("\\dfrac", "\\frac").replace("\\left", "").replace("\\right", "").replace("\\!", "")
    return text.replace("\\frac", "\\tfrac") if "\\frac" in text else f" {text} "


def _slip(gold: str, other: str) -> str:
    """One integer is off by one, or the sign where there is none."""
    slipped = _INTEGER.sub(lambda m: str(int(m[0]) + 1), gold, count=1)
    if slipped == gold:
        return f"$-{gold[1:]}" if gold.startswith("$") else f"-{gold}"
    return slipped


_ANSWERS: dict[str, Callable[[str, str], str]] = {
    "gold": lambda gold, other: gold,
    "respelled": _respelled,
    "named": lambda gold, other: f"x = {gold}",
    "slip": _slip,
    "another item's": lambda gold, other: other,
}
"""What the completion answers, by kind: from the gold answer and another item's."""


@dataclass(frozen=True)
class Difference:
    """A completion that is judged differently."""

    kind: str
    """How the answer was made; a key of `_ANSWERS`, or "no box"."""
    gold: str
    answer: str
    ours: str
    """correct, wrong or unknown."""
    theirs: str
    """correct or wrong."""
    rule: str
    """Where ours has read the answer."""
    reason: str
    """Why ours says so, as far as it tells."""


def compare(paths: Sequence[str], most: int | None = None) -> dict[str, Any]:
    """Judge completions made from the gold answers of prompt files (at most `most` of them) with both.

    Figures: items, agreed, both_correct, ours_unknown, differences (each `Difference`) and their number by
    kind and direction. Call it in a main thread: math-verify sets an alarm. Raises `DataRejected` for fewer than two
    answers.
    """
    golds = [prompt.answer for path in paths for prompt in load_prompts(DataConfig(path=path)).prompts][:most]
    if len(golds) < 2:
        raise DataRejected(f"{', '.join(paths)}: fewer than two usable answers; name a larger prompt set")
    items = [
        (kind, gold, answer, model_like(i, answer))
        for i, gold in enumerate(golds)
        for kind, answer_to in _ANSWERS.items()
        for answer in (answer_to(gold, golds[i - 1]),)
    ]
    items += [("no box", gold, gold, f"We simplify.\nThe answer is {_in_math(gold)}.") for gold in golds]
    with make_verifier(MathConfig(workers=2, timeout_s=_PATIENCE_S)) as verifier:
        verdicts = verifier.judge_pairs([(completion, gold) for _, gold, _, completion in items])
    theirs = [_theirs(completion, gold) for _, gold, _, completion in items]
    found = [
        Difference(
            kind, gold, answer, str(verdict.outcome), "correct" if right else "wrong", verdict.rule, verdict.reason
        )
        for (kind, gold, answer, _), verdict, right in zip(items, verdicts, theirs, strict=True)
        if (verdict.outcome is Outcome.CORRECT) != right
    ]
    both = sum(v.outcome is Outcome.CORRECT and right for v, right in zip(verdicts, theirs, strict=True))
    return {
        "items": len(items),
        "agreed": len(items) - len(found),
        "both_correct": both,
        "ours_unknown": sum(v.outcome is Outcome.UNKNOWN for v in verdicts),
        "by_kind": dict(sorted(Counter(f"{d.kind}: {d.ours} here, {d.theirs} there" for d in found).items())),
        "differences": [asdict(d) for d in found],
    }


def _in_math(answer: str) -> str:
    return answer if _DOLLAR.search(answer) else f"${answer}$"


def _theirs(completion: str, gold: str) -> bool:
    """math-verify as its documentation calls it, but for the time it may take."""
    from math_verify import parse, verify

    limit = round(_PATIENCE_S)
    wanted, given = (parse(text, parsing_timeout=limit) for text in (f"${gold}$", completion))
    return bool(verify(wanted, given, timeout_seconds=limit))
